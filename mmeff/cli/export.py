"""`mmeff export RUN --to DIR`: a trained model as safetensors and JSON."""

from mmeff.cli.words import Words


def main(words: list[str]) -> int:
    p = Words(prog="mmeff export", description="Write a model as model.safetensors and config.json.")
    p.add_argument("run", help="run folder (its best checkpoint) or .ckpt file")
    p.add_argument("--to", required=True, help="a new folder")
    p.add_argument("--trust", action="append", default=[], help="a package whose classes the checkpoint may build")
    options = p.parse_args(words[1:])

    from mmeff.checkpoint import export

    folder = export(options.run, options.to, options.trust)
    print(f"wrote {folder}: mmeff predict --ckpt {folder} FILE, or mmeff.load({str(folder)!r})")
    return 0
