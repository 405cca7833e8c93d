"""Writes tables/protocols.toml, and says which protocol is another than that of the last commit, in which setting.

python -m tests.pin
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from pretrain import judge, train
from resim_bench import experiments, record
from resim_bench.harness import runs
from transfer import protocols

FILE = experiments.ROOT / "tables" / "protocols.toml"
HEAD = """\
# The protocols that a record must have followed: sha256 of the canonical JSON of `protocol`, by id (`make pin`).
# A record with another digest deviates; an id that is not here (given-*) is not checked.
"""
PLACE = {"data": "anywhere", "classes": ["a"], "seed": 3, "backbone": "any"}


def of_recipe(pretrain_id: str) -> dict:
    """Its protocol."""
    recipe = train.load_recipe(pretrain_id)
    return train.protocol(recipe, recipe.dataset)


def of_protocol(transfer_id: str) -> dict:
    """What a run of it records, but for data and seed."""
    return protocols.summary(protocols.resolve(protocols.load(transfer_id), **PLACE))


def of_all() -> dict[str, dict[str, dict]]:
    """Every protocol of today, by room and id."""
    return {
        "pretrain": {name: of_recipe(name) for name in experiments.pretrain_ids()},
        "transfer": {name: of_protocol(name) for name in experiments.transfer_ids()}
        | {name: judge.protocol(name) for name in experiments.readings_ids()},
    }


def of_last_commit() -> dict[str, dict[str, dict]]:
    """Those that the code of the last commit makes; empty where it cannot say."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=experiments.ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        said = subprocess.run([sys.executable, "-m", "tests.pin", "--show"], cwd=folder, capture_output=True, text=True)
    return json.loads(said.stdout) if said.returncode == 0 else {"pretrain": {}, "transfer": {}}


def main() -> None:
    """Write the digests and print the differences."""
    now = of_all()
    if "--show" in sys.argv[1:]:
        print(json.dumps(now))
        return
    parts = [HEAD]
    for room, of_room in now.items():
        parts += [f"\n[{room}]\n", *(f'{name} = "{record.digest(found)}"\n' for name, found in of_room.items())]
    Path(FILE).write_text("".join(parts))
    before = of_last_commit()
    for room, of_room in now.items():
        for name in dict.fromkeys([*before[room], *of_room]):
            if name not in of_room or name not in before[room]:
                print(f"{name}: {'new' if name in of_room else 'gone'}")
                continue
            for setting, (was, is_now) in runs.differences(before[room][name], of_room[name]).items():
                print(f"{name}: {setting} was {was}, is {is_now}")


if __name__ == "__main__":
    main()
