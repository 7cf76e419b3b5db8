"""E2B's own SDK, unmodified: the same script on E2B's cloud and on this server; only the environment differs.

export E2B_API_KEY=e2b_…                                # on E2B's cloud this is all
python examples/wires/e2b_migration.py

onehop serve
export E2B_API_URL=http://127.0.0.1:8000/e2b E2B_SANDBOX_URL=http://127.0.0.1:8000/e2b
export E2B_API_KEY=e2b_0000000000000000000000000000000000000000   # or: onehop keys create --e2b
python examples/wires/e2b_migration.py
"""

from __future__ import annotations

from e2b_code_interpreter import Sandbox

CSV = "city,sales\nOslo,3\nBergen,5\nOslo,4\n"


def main() -> None:
    with Sandbox.create(metadata={"user": "ada"}) as sandbox:
        sandbox.files.write("sales.csv", CSV)
        read = sandbox.run_code(
            "import pandas as pd\nsales = pd.read_csv('/home/user/sales.csv')\nlen(sales)"
        )
        print("rows:", read.text)
        drawn = sandbox.run_code(
            "import matplotlib.pyplot as plt\n"
            "totals = sales.groupby('city').sales.sum()\n"
            "plt.bar(totals.index, totals.values); plt.title('Sales'); plt.show()\n"
            "print(totals.to_dict())",
            on_stdout=lambda message: print("printed:", message.line, end=""),
        )
        figure = drawn.results[0]
        print("chart:", figure.chart.type.value, [(bar.label, bar.value) for bar in figure.chart.elements])
        failed = sandbox.run_code("sales.missing")
        print("error:", failed.error.name)
        print("shell:", sandbox.commands.run("wc -l < sales.csv").stdout.strip(), "lines")
        print("files:", [entry.name for entry in sandbox.files.list("/home/user")])


if __name__ == "__main__":
    main()
