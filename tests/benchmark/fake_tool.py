"""Stands in for a tool on PATH: says what `NAME.replies.json` beside it has for its arguments, and keeps what it was asked.

[{"of": pattern of the arguments, "says": [text, ...], "code": 0, "copies": [from, to] or null}]: the first whose pattern is found;
of several texts the next one each time, the last for ever. "to" may be "pulled", as `adb pull FILE FOLDER` names it, or "--flag", what follows it.
"""

import json
import re
import shutil
import sys
from pathlib import Path

here = Path(sys.argv[0])
arguments = sys.argv[1:]
with here.with_name(f"{here.name}.asked").open("a", encoding="utf-8") as asked:
    asked.write(" ".join(arguments) + "\n")
replies_file = here.with_name(f"{here.name}.replies.json")
replies = json.loads(replies_file.read_text("utf-8"))
for reply in replies:
    if re.search(reply["of"], " ".join(arguments)):
        if reply.get("copies"):
            source, to = reply["copies"]
            pulled = Path(arguments[-1], Path(arguments[-2]).name)
            target = pulled if to == "pulled" else Path(arguments[arguments.index(to) + 1])
            if Path(source).is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
        says = reply.get("says", [""])
        print(says[0], end="")
        if len(says) > 1:
            reply["says"] = says[1:]
            replies_file.write_text(json.dumps(replies), "utf-8")
        sys.exit(reply.get("code", 0))
print(f"the stand-in knows no answer to: {arguments}")
sys.exit(99)
