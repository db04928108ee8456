"""Pages: figures as something that a person can read, print and sign.

Takes: plain numbers and texts. Gives: self-contained HTML (styles and plots inside, no script, no network) and inline
SVG that follows the reader's light or dark setting. Writes: the one file that it is told to.
Never: reads the store, measures anything, lets a text become markup.
"""

from rlhf.pages import plots
from rlhf.pages.page import Section, facts, page, plot_grid, table
from rlhf.pages.run_report import write_run_report

__all__ = ["Section", "facts", "page", "plot_grid", "plots", "table", "write_run_report"]
