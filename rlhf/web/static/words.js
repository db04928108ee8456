// A text that a person or a model wrote: set as text, never as HTML; where the server read it as Markdown, built from elements of TAGS
// that hold text.
"use strict";
const Words = (() => {
  const TAGS = new Set(["p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "h3", "table", "thead", "tbody", "tr", "th", "td"]);
  const INLINE = new Set(["br", "em", "strong", "s", "li"]); // run as what they stand in; a list's marks stand where the list begins
  const CODE = new Set(["pre", "code"]); // runs from left to right
  const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

  /** nodes: the text read as Markdown, by the server; null = show it as it is. */
  function show(element, text, nodes) {
    element.classList.toggle("rendered", nodes !== null);
    element.replaceChildren();
    if (nodes === null) element.textContent = text;
    else grow(element, nodes);
  }

  function grow(parent, nodes) {
    for (const node of nodes) {
      if (typeof node === "string") { parent.append(node); continue; }
      const [tag, inner, start] = node;
      if (!TAGS.has(tag)) continue;
      const element = document.createElement(tag);
      if (Number.isInteger(start)) element.start = start;
      const way = CODE.has(tag) ? "ltr" : INLINE.has(tag) ? "" : wayOf(inner);
      if (way) element.dir = way;
      if (tag === "pre" || tag === "table") element.tabIndex = 0; // what scrolls can be reached by keyboard
      grow(element, inner);
      parent.append(element);
    }
  }

  /** As its first letter outside code runs; "" = as what it stands in. (dir=auto would pass over children with a way of their own.) */
  function wayOf(nodes) {
    for (const node of nodes) {
      const letter = typeof node === "string" && node.match(/\p{L}/u);
      if (letter) return RIGHT_TO_LEFT.test(letter[0]) ? "rtl" : "ltr";
      const way = Array.isArray(node) && !CODE.has(node[0]) && wayOf(node[1]);
      if (way) return way;
    }
    return "";
  }

  return { show };
})();
