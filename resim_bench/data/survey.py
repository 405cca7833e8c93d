"""What a reader found in a data set: how much, what was left out, and what is wrong with it.

A reader reads on where it finds a fault, and notes it here. A run then stops at the first; `resim-bench data check`
shows all.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from resim_bench.errors import UserError, one_line


class Found(NamedTuple):
    """A kind of thing that a reader met: how often, where first, and of a fault the whole sentence about the first."""

    times: int
    first: str
    sentence: str = ""


def _count(kinds: dict[str, Found], kind: str, where: str, sentence: str = "") -> None:
    before = kinds.get(kind) or Found(0, one_line(where), sentence)
    kinds[kind] = before._replace(times=before.times + 1)


@dataclass
class Survey:
    """Of one split, or of one folder of images.

    Attributes:
        title: which, as in "VOC trainval".
        images, objects: how many are used; `objects` is None where images have none.
        classes: how many.
        notes: what takes part, but should be known, by kind, as below.
        left_out: what does not take part, and why, by kind; the kind is a plural ("boxes without area").
        faults: why the data cannot be used, by kind, as above.
    """

    title: str
    images: int = 0
    objects: int | None = None
    classes: int = 0
    notes: dict[str, Found] = field(default_factory=dict)
    left_out: dict[str, Found] = field(default_factory=dict)
    faults: dict[str, Found] = field(default_factory=dict)

    def leave_out(self, kind: str, where: str) -> None:
        """Note something that does not take part: its kind, and its name for the first of the kind."""
        _count(self.left_out, kind, where)

    def note(self, kind: str, where: str) -> None:
        """Note something that takes part, but should be known: kind and name as above."""
        _count(self.notes, kind, where)

    def fault(self, kind: str, where: str, sentence: str) -> None:
        """Note a fault: kind and name as above, and what a run says of the first: what is wrong and what to do."""
        _count(self.faults, kind, where, sentence)

    def refuse(self) -> None:
        """Stop at the first fault, if there is one.

        Raises:
            UserError: its sentence, and how many more there are.
        """
        if not self.faults:
            return
        more = sum(found.times for found in self.faults.values()) - 1
        first = next(iter(self.faults.values()))
        hint = f" ({more} more: `resim-bench data check` shows all)" if more else ""
        raise UserError(first.sentence + hint)

    def facts(self) -> dict:
        """What a record keeps of it; JSON-able."""
        kinds = {"left_out": self.left_out} | ({"notes": self.notes} if self.notes else {})
        counts = {"images": self.images, "objects": self.objects, "classes": self.classes}
        return {key: value for key, value in counts.items() if value is not None} | {
            name: {kind: {"count": found.times, "first": found.first} for kind, found in some.items()}
            for name, some in kinds.items()
        }

    def line(self) -> str:
        """`VOC trainval: 5 images, 9 objects of 2 classes; left out: 3 boxes without area (first: x.xml)`."""
        line = self.counted()
        for heading, kinds in (("left out", self.left_out), ("note", self.notes)):
            said = [f"{found.times:,} {kind} (first: {found.first})" for kind, found in kinds.items()]
            line += f"; {heading}: {', '.join(said)}" if said else ""
        return line

    def counted(self) -> str:
        """What the line begins with: how much there is."""
        counted = f"{self.images:,} image{'s' * (self.images != 1)}"
        if self.objects is not None:
            counted += f", {self.objects:,} object{'s' * (self.objects != 1)}"
        return f"{one_line(self.title)}: {counted} of {self.classes:,} class{'es' * (self.classes != 1)}"
