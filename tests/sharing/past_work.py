"""A random workload, and what a tree looks like: programs that tests run in children."""

WORK = r"""
import os, random, sys
# So many random changes of the tree at the first argument.
os.chdir(sys.argv[1])
dice = random.Random(sys.argv[3])

def paths(kind):
    found = []
    for top, folders, files in os.walk("."):
        if ".cozy_trash" in folders:
            folders.remove(".cozy_trash")
        found += [os.path.join(top, name) for name in (folders if kind == "d" else files)]
    return [path for path in found if kind == "d" or not os.path.islink(path)]

def new():
    return os.path.join(dice.choice([".", *paths("d")]), f"n{dice.randrange(10**6)}")

def write(path, mode):
    with open(path, mode) as file:
        file.write(dice.randbytes(dice.choice((0, 10, 3000, 300_000))))

def change(file):
    kind = dice.randrange(13)
    if kind < 3 or file is None:
        write(new(), "wb")
    elif kind == 3:
        os.mkdir(new())
    elif kind == 4:
        write(file, "wb")
    elif kind == 5:
        write(file, "ab")
    elif kind == 6:
        os.rename(file, dice.choice([new(), *paths("f")]))
    elif kind == 7:
        folder = dice.choice(paths("d") or [file])
        os.rename(folder, folder + "r")
    elif kind == 8:
        os.unlink(file)
    elif kind == 9:
        os.chmod(file, dice.choice((0o600, 0o644, 0o755)))
        os.utime(file, ns=(10**18, dice.randrange(10**18)))
    elif kind == 10:
        os.setxattr(file, dice.choice(("user.a", "user.b")), dice.randbytes(5))
    elif kind == 11:
        os.link(file, new())
    elif kind == 12:
        os.truncate(file, dice.randrange(1000))
        os.symlink("target", new())

for _ in range(int(sys.argv[2])):
    change(dice.choice(paths("f") or [None]))
"""

LOOK = r"""
import hashlib, json, os, stat, sys
# Everything that can be seen of a tree, as JSON.
top = os.path.abspath(sys.argv[1])
seen = {}
for folder, folders, files in os.walk(top):
    for name in [".", *folders, *files]:
        path = os.path.normpath(os.path.join(folder, name))
        found = os.lstat(path)
        row = [found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns]
        row += [{n: os.getxattr(path, n, follow_symlinks=False).hex()
                 for n in sorted(os.listxattr(path, follow_symlinks=False))}]
        if stat.S_ISLNK(found.st_mode):
            row.append(os.readlink(path))
        elif stat.S_ISREG(found.st_mode):
            with open(path, "rb") as file:
                row += [found.st_size, found.st_nlink, hashlib.md5(file.read()).hexdigest()]
        seen[os.path.relpath(path, top)] = row
print(json.dumps(seen, sort_keys=True, indent=0))
"""
