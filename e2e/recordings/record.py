#!/usr/bin/env python3
"""Writes docs/pictures/*.svg: what the demo prints, and what kubectl says of a Service that waits. `make recordings`.

The arguments are the command that starts herald-lab. Everything that a picture shows was printed by a real program on a
laboratory of its own (`herald-lab demo` is what `make demo` runs); a line "..." stands where something was left out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

WORKSPACE = Path(__file__).resolve().parent.parent.parent
PICTURES = WORKSPACE / "docs" / "pictures"
WIDTH = 108

# A dark terminal with its own background stands out from a light page and from a dark one.
THEME = TerminalTheme(
    (30, 34, 42),
    (216, 222, 233),
    [(59, 66, 82), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194), (216, 222, 233)],
)

# The page's own fonts: a picture that loads nothing looks the same without a network.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""


class Lab:
    """A laboratory of its own, which is taken down at the end."""

    def __init__(self, command):
        self.command = [*command, "--id", "recordings"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run([*self.command, "down"], check=True, stdout=subprocess.DEVNULL)

    def run(self, *arguments, **options):
        """Runs herald-lab and returns what it printed on standard output."""
        done = subprocess.run([*self.command, *arguments], check=True, stdout=subprocess.PIPE, text=True, **options)
        return done.stdout

    def kubectl(self, command):
        """Returns a command of kubectl with what it printed."""
        return f"$ kubectl {command}\n{self.run('kubectl', *command.split())}"


def paragraphs(text):
    """Splits a text at its empty lines."""
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip()]


def chosen(output, beginnings):
    """Returns, in the order of the output, the first paragraph with each beginning, and "..." where something is left out.

    Of a paragraph with what a probe reports, which is long, the first line is returned.
    """
    left, lines = list(beginnings), []
    for paragraph in paragraphs(output):
        beginning = next((one for one in left if paragraph.startswith(one)), None)
        if beginning is not None:
            left.remove(beginning)
            first, *others = paragraph.splitlines()
            is_report = any("witness stalled" in line for line in others)
            lines += ["", first, *(["..."] if is_report else others)]
        elif lines[-1:] != ["..."]:
            lines.append("...")
    if left:
        sys.exit(f"record.py: the output has no paragraph that begins with {left[0]!r}:\n{output}")
    return "\n".join(lines).removesuffix("\n...")


def picture(name, title, output):
    """Writes an SVG of a terminal: commands stand out, everything else is as it was printed."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w", encoding="utf-8"))
    for line in output.splitlines():
        style = "bold green" if line.startswith("$ ") else "cyan" if line == "..." else ""
        console.print(Text(line, style=style), highlight=False)
    svg = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=name)
    PICTURES.mkdir(exist_ok=True)
    # Rich leaves blanks at the ends of lines.
    (PICTURES / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


# A Service that asks for the address of another one.
SHOP = """
apiVersion: v1
kind: Service
metadata: {{name: shop, annotations: {{heraldlb.io/addresses: {address}}}}}
spec:
  type: LoadBalancer
  loadBalancerClass: heraldlb.io/l2
  selector: {{app: shop}}
  ports: [{{name: http, port: 80}}]
"""


def main():
    with Lab(sys.argv[1:]) as lab:
        demo = lab.run("demo", "--keep")
        parts = ["$ kubectl get nodes", "$ kubectl get svc echo", "$ kubectl get vip", "A client outside", "The speaker on", "Now node"]
        picture("demo", "make demo", "$ make demo\n" + chosen(demo, [*parts, "$ kubectl get vip", "What the client noticed"]))

        address = lab.run("kubectl", "get", "svc", "echo", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
        lab.run("kubectl", "apply", "-f", "-", input=SHOP.format(address=address))
        condition = "--for=condition=heraldlb.io/AddressAssigned=False"
        lab.run("kubectl", "wait", "svc", "shop", condition, "--timeout=60s")
        commands = [lab.kubectl("get svc shop"), lab.kubectl("describe svc shop")]
        picture("pending", "why a Service is pending", "\n".join(commands))


if __name__ == "__main__":
    main()
