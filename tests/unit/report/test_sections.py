"""Blocks: what may be seen by everybody, and what is escaped."""

from markupsafe import Markup
from matplotlib.figure import Figure

from cxrscale.report.cells import PageTable
from cxrscale.report.page import environment
from cxrscale.report.sections import Bullets, Details, Drawn, Framed, Paragraph, Section, single

OPEN, HIDDEN = PageTable("open", ["a"], [["1"]]), PageTable("hidden", ["a"], [["2"]], private=True)
PICTURE = Drawn("cam", Figure(), "caption", private=True)


def test_what_is_private_is_left_out_at_any_depth():
    text = Paragraph("text")
    section = Section("x", "X", [text, Details("more", [OPEN, Framed([HIDDEN])]), PICTURE])
    assert list(single(section.shared().blocks)) == [text, OPEN]
    assert section.private().blocks == [HIDDEN, PICTURE]


def test_text_is_escaped_and_markup_is_not():
    show = environment().get_template("parts.html.j2").module.show
    shown = show([Paragraph("<i>"), Paragraph(Markup("<b>x</b>"), soft=True), Bullets(["<u>"]), Details("<s>", [OPEN])])
    assert "<p>&lt;i&gt;</p>" in shown
    assert '<p class="soft"><b>x</b></p>' in shown
    assert "<li>&lt;u&gt;</li>" in shown
    assert "<summary>&lt;s&gt;</summary>" in shown
    assert "<caption>open</caption>" in shown
