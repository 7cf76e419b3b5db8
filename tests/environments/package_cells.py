"""One cell for every direct requirement of the default environment: import it, do one real thing, check.

Data only. The cells run inside a sandbox: no network but the loopback, no home but the workspace, no
/sys, and only process directories in /proc. Each prints one line that begins with its name.
"""

PACKAGE_CELLS: dict[str, str] = {
    "ipython": """
import IPython
shell = IPython.core.interactiveshell.InteractiveShell.instance()
result = shell.run_cell("import math; math.factorial(10)")
assert result.success and result.result == 3628800
print("ipython:", IPython.__version__)
""",
    "msgspec": """
import msgspec
class Frame(msgspec.Struct, tag=True):
    number: int
    data: bytes
packed = msgspec.msgpack.encode(Frame(7, b"\\x00\\xff"))
assert msgspec.msgpack.decode(packed, type=Frame) == Frame(7, b"\\x00\\xff")
try:
    msgspec.json.decode(b'{"type": "Frame", "number": "x", "data": ""}', type=Frame)
    raise SystemExit("a wrong type was accepted")
except msgspec.ValidationError as error:
    print("msgspec:", error)
""",
    "numpy": """
import numpy as np
rng = np.random.default_rng(1)
a = rng.normal(size=(120, 120))
x = np.linalg.solve(a, a @ np.ones(120))
assert np.allclose(x, 1.0)
assert np.fft.ifft(np.fft.fft(np.arange(8))).real.round().astype(int).tolist() == list(range(8))
print("numpy:", float(np.linalg.norm(x).round(3)))
""",
    "pandas": """
import io, pandas as pd
frame = pd.read_csv(io.StringIO("day,shop,sold\\n2026-01-05,a,3\\n2026-01-06,b,4\\n2026-01-13,a,5\\n"), parse_dates=["day"])
weekly = frame.set_index("day").groupby("shop").resample("W").sold.sum()
assert weekly.loc["a"].tolist() == [3, 5]
assert frame.describe().loc["mean", "sold"] == 4
assert pd.read_html(io.StringIO(frame.to_html()))[0].shape == (3, 4)
assert pd.Timestamp("2026-07-01", tz="Europe/Berlin").utcoffset().total_seconds() == 7200
print("pandas:", frame.dtypes.astype(str).to_dict())
""",
    "scipy": """
from scipy import optimize, stats, sparse, integrate
assert abs(integrate.quad(lambda x: x**2, 0, 3)[0] - 9) < 1e-9
best = optimize.linprog([-1, -2], A_ub=[[1, 1]], b_ub=[4], bounds=[(0, 3), (0, 3)])
assert best.success and abs(best.fun + 7) < 1e-9
assert sparse.eye(5).tocsr().sum() == 5
print("scipy:", round(float(stats.ttest_ind([1, 2, 3, 4], [3, 4, 5, 6]).pvalue), 4))
""",
    "scikit-learn": """
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
x, y = load_iris(return_X_y=True)
forest = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=20, random_state=0, n_jobs=-1))
score = cross_val_score(forest, x, y, cv=3, n_jobs=-1).mean()
assert score > 0.9
assert len(set(KMeans(3, n_init=2, random_state=0).fit_predict(x))) == 3
assert HistGradientBoostingClassifier(max_iter=5).fit(x, y).score(x, y) > 0.9
print("scikit-learn:", round(float(score), 3))
""",
    "statsmodels": """
import statsmodels.api as sm
import statsmodels.formula.api as smf
data = sm.datasets.longley.load_pandas().data
fit = smf.ols("TOTEMP ~ GNP + UNEMP", data=data).fit()
assert fit.rsquared > 0.97 and "R-squared" in str(fit.summary())
print("statsmodels:", round(fit.rsquared, 4))
""",
    "polars": """
import io, polars as pl
frame = pl.DataFrame({"shop": ["a", "b", "a"], "sold": [3, 4, 5]})
totals = frame.lazy().group_by("shop").agg(pl.col("sold").sum()).sort("shop").collect()
assert totals.rows() == [("a", 8), ("b", 4)]
buffer = io.BytesIO()
frame.write_parquet(buffer)
buffer.seek(0)
assert pl.read_parquet(buffer).equals(frame)
assert pl.from_pandas(frame.to_pandas()).equals(frame)
print("polars:", totals.to_dicts())
""",
    "pyarrow": """
import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
table = pa.table({"n": [1, 2, None], "s": ["x", "y", "z"]})
pq.write_table(table, "cell.parquet")
back = pq.read_table("cell.parquet")
assert back.equals(table)
assert back.to_pandas().s.tolist() == ["x", "y", "z"]
print("pyarrow:", pc.sum(back["n"]).as_py())
""",
    "duckdb": """
import duckdb, pandas as pd
sales = pd.DataFrame({"shop": ["a", "b", "a"], "sold": [3, 4, 5]})
rows = duckdb.sql("SELECT shop, sum(sold) AS total FROM sales GROUP BY shop ORDER BY shop").fetchall()
assert rows == [("a", 8), ("b", 4)]
with duckdb.connect("cell.duckdb") as database:
    database.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    database.sql("COPY t TO 'cell.csv'")
    assert database.sql("SELECT sum(i) FROM 'cell.csv'").fetchall() == [(499500,)]
print("duckdb:", rows)
""",
    "sympy": """
import sympy as sp
x = sp.symbols("x")
assert sp.integrate(sp.exp(-x**2), (x, -sp.oo, sp.oo)) == sp.sqrt(sp.pi)
roots = sp.solve(x**2 - 5*x + 6, x)
assert roots == [2, 3]
print("sympy:", sp.latex(sp.Eq(x**2, sp.Rational(1, 3))))
""",
    "mpmath": """
import mpmath
mpmath.mp.dps = 50
assert mpmath.nstr(mpmath.pi, 30) == "3.14159265358979323846264338328"
print("mpmath:", mpmath.nstr(mpmath.zeta(3), 20))
""",
    "networkx": """
import networkx as nx
graph = nx.Graph()
graph.add_weighted_edges_from([("a", "b", 1), ("b", "c", 2), ("a", "c", 5)])
assert nx.shortest_path(graph, "a", "c", weight="weight") == ["a", "b", "c"]
assert abs(sum(nx.pagerank(graph).values()) - 1) < 1e-6
print("networkx:", nx.shortest_path_length(graph, "a", "c", weight="weight"))
""",
    "matplotlib": """
import io, matplotlib, warnings
matplotlib.use("agg")
import matplotlib.pyplot as plt
from PIL import Image
warnings.simplefilter("error")
figure, axes = plt.subplots(figsize=(4, 3))
axes.plot([1, 4, 9], label="squares")
axes.set(title="Umsatz in \\u20ac, $x^2$", xlabel="n")
axes.legend()
sizes = {}
for kind in ("png", "svg", "pdf"):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    sizes[kind] = len(buffer.getvalue())
    assert sizes[kind] > 3000
    if kind == "png":
        assert Image.open(buffer).size == (400, 300)
print("matplotlib:", sizes)
""",
    "seaborn": """
import matplotlib
matplotlib.use("agg")
import pandas as pd, seaborn as sns
sns.set_theme()
frame = pd.DataFrame({"shop": list("aabbcc") * 5, "sold": range(30), "day": list(range(5)) * 6})
axes = sns.barplot(frame, x="shop", y="sold", hue="day")
axes.figure.savefig("cell.png")
grid = sns.lmplot(frame, x="day", y="sold", col="shop")
assert grid.axes.shape == (1, 3)
print("seaborn:", len(axes.patches) >= 15)
""",
    "plotly": """
import json, plotly.express as px, pandas as pd
figure = px.scatter(pd.DataFrame({"x": [1, 2], "y": [3, 4], "kind": ["a", "b"]}), x="x", y="y", color="kind")
document = json.loads(figure.to_json())
assert [trace["name"] for trace in document["data"]] == ["a", "b"]
page = figure.to_html(include_plotlyjs=True)
assert "Plotly.newPlot" in page and len(page) > 1_000_000
figure.write_html("cell.html")
print("plotly:", len(document["data"]))
""",
    "e2b-charts": """
import matplotlib.pyplot as plt
from e2b_charts import chart_figure_to_dict
figure, axes = plt.subplots()
axes.bar(["a", "b"], [1, 2])
axes.set_title("Two")
chart = chart_figure_to_dict(figure)
plt.close(figure)
assert chart["title"] == "Two" and [one["value"] for one in chart["elements"]] == [1, 2]
print("e2b-charts:", chart["type"])
""",
    "pillow": """
import io
from PIL import Image, ImageDraw, ImageFilter, ImageFont
image = Image.new("RGB", (64, 32), "white")
ImageDraw.Draw(image).text((2, 2), "abc", fill="black", font=ImageFont.load_default(16))
for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
    buffer = io.BytesIO()
    image.filter(ImageFilter.BLUR).resize((32, 16)).save(buffer, kind)
    assert Image.open(io.BytesIO(buffer.getvalue())).size == (32, 16), kind
print("pillow:", image.getextrema()[0])
""",
    "manimgx-fonts": """
import io, warnings
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib import font_manager
warnings.simplefilter("error")  # a missing glyph is a UserWarning
names = {entry.name for entry in font_manager.fontManager.ttflist}
assert {"Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji"} <= names
for family, text in {
    "Noto Sans Devanagari": "\\u0928\\u092e\\u0938\\u094d\\u0924\\u0947",
    "Noto Sans Thai": "\\u0e2a\\u0e27\\u0e31\\u0e2a\\u0e14\\u0e35",
    "Noto Emoji": "\\U0001f680",
}.items():
    figure = plt.figure()
    figure.text(0.1, 0.5, text, family=family)
    figure.savefig(io.BytesIO(), format="png")
    figure.savefig(io.BytesIO(), format="pdf")
print("manimgx-fonts:", len(names))
""",
    "noto-cjk-sans-otc": """
import io, warnings
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
warnings.simplefilter("error")
plt.rcParams["font.sans-serif"] = ["SimHei", "DejaVu Sans"]
figure, axes = plt.subplots()
axes.set_title("\\u9500\\u552e\\u989d")
axes.set_xlabel("\\u58f2\\u4e0a\\u3052", family="Noto Sans CJK JP")
axes.set_ylabel("\\ub9e4\\ucd9c", family="Malgun Gothic")
for kind in ("png", "svg", "pdf"):
    figure.savefig(io.BytesIO(), format=kind)
print("noto-cjk-sans-otc:", plt.rcParams["font.sans-serif"][0])
""",
    "openpyxl": """
import openpyxl, pandas as pd
from openpyxl.chart import BarChart, Reference
book = openpyxl.Workbook()
sheet = book.active
for row in [("shop", "sold"), ("a", 3), ("b", 4)]:
    sheet.append(row)
sheet["B4"] = "=SUM(B2:B3)"
chart = BarChart()
chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=3), titles_from_data=True)
sheet.add_chart(chart, "D2")
book.save("cell.xlsx")
assert openpyxl.load_workbook("cell.xlsx").active["B4"].value == "=SUM(B2:B3)"
assert pd.read_excel("cell.xlsx", nrows=2).sold.tolist() == [3, 4]
print("openpyxl:", sheet.dimensions)
""",
    "xlsxwriter": """
import openpyxl, pandas as pd
with pd.ExcelWriter("cell.xlsx", engine="xlsxwriter") as writer:
    pd.DataFrame({"sold": [3, 4]}).to_excel(writer, sheet_name="Sales", index=False)
    writer.sheets["Sales"].conditional_format("A2:A3", {"type": "data_bar"})
sheet = openpyxl.load_workbook("cell.xlsx")["Sales"]
assert [cell.value for cell in sheet["A"]] == ["sold", 3, 4]
assert len(list(sheet.conditional_formatting)) == 1
print("xlsxwriter:", sheet.title)
""",
    # No package writes .xls any more, so the smallest BIFF2 sheet is put together by hand ([MS-XLS], 2.4).
    "xlrd": """
import struct, xlrd
def record(kind, body):
    return struct.pack("<HH", kind, len(body)) + body
cell = struct.pack("<HH3sd", 0, 0, b"\\0\\0\\0", 42.5)
text = struct.pack("<HH3sB", 1, 0, b"\\0\\0\\0", 4) + b"sold"
stream = record(0x09, struct.pack("<HH", 2, 0x10)) + record(0x03, cell) + record(0x04, text) + record(0x0A, b"")
sheet = xlrd.open_workbook(file_contents=stream).sheet_by_index(0)
assert sheet.cell_value(0, 0) == 42.5 and sheet.cell_value(1, 0) == "sold"
print("xlrd:", sheet.nrows)
""",
    "python-docx": """
import docx
document = docx.Document()
document.add_heading("Report", 1)
document.add_paragraph("Sold: ").add_run("42").bold = True
table = document.add_table(rows=1, cols=2)
table.rows[0].cells[1].text = "total"
document.save("cell.docx")
back = docx.Document("cell.docx")
assert [p.text for p in back.paragraphs] == ["Report", "Sold: 42"]
assert back.tables[0].cell(0, 1).text == "total"
print("python-docx:", back.paragraphs[0].style.name)
""",
    "python-pptx": """
import io
from PIL import Image
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
deck = Presentation()
slide = deck.slides.add_slide(deck.slide_layouts[5])
slide.shapes.title.text = "Results"
data = CategoryChartData()
data.categories = ["a", "b"]
data.add_series("sold", (3, 4))
slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(2), Inches(6), Inches(4), data)
picture = io.BytesIO()
Image.new("RGB", (10, 10), "red").save(picture, "PNG")
picture.seek(0)
slide.shapes.add_picture(picture, 0, 0)
deck.save("cell.pptx")
back = Presentation("cell.pptx").slides[0]
assert back.shapes.title.text == "Results" and any(shape.has_chart for shape in back.shapes)
print("python-pptx:", len(back.shapes))
""",
    "pypdf": """
import io
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen import canvas
buffer = io.BytesIO()
page = canvas.Canvas(buffer)
for number in (1, 2, 3):
    page.drawString(100, 700, f"page {number}")
    page.showPage()
page.save()
writer = PdfWriter()
writer.append(buffer, pages=(1, 3))
writer.encrypt("secret", algorithm="AES-256")
writer.write("cell.pdf")
reader = PdfReader("cell.pdf")
assert reader.is_encrypted and reader.decrypt("secret")
assert [page.extract_text().strip() for page in reader.pages] == ["page 2", "page 3"]
print("pypdf:", len(reader.pages))
""",
    "pdfplumber": """
import pdfplumber
from reportlab.lib import colors
from reportlab.platypus import SimpleDocTemplate, Table
rows = [["shop", "sold"], ["a", "3"], ["b", "4"]]
SimpleDocTemplate("cell.pdf").build([Table(rows, style=[("GRID", (0, 0), (-1, -1), 1, colors.black)])])
with pdfplumber.open("cell.pdf") as pdf:
    assert pdf.pages[0].extract_table() == rows
    assert pdf.pages[0].to_image(resolution=36).original.size[0] > 200
print("pdfplumber:", rows[0])
""",
    "reportlab": """
from reportlab.graphics.barcode.qr import QrCodeWidget
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer
from pypdf import PdfReader
style = getSampleStyleSheet()["BodyText"]
SimpleDocTemplate("cell.pdf", pagesize=A4).build(
    [part for _ in range(60) for part in (Paragraph("Sold <b>42</b>", style), Spacer(1, 12))])
reader = PdfReader("cell.pdf")
assert "Sold 42" in reader.pages[0].extract_text() and len(reader.pages) > 1
print("reportlab:", QrCodeWidget("x").getBounds()[0])
""",
    "beautifulsoup4": """
from bs4 import BeautifulSoup
page = "<ul><li class=x>one</li><li>two</li></ul>"
for parser in ("html.parser", "lxml", "html5lib"):
    soup = BeautifulSoup(page, parser)
    assert [item.get_text() for item in soup.select("li")] == ["one", "two"], parser
print("beautifulsoup4:", soup.find("li", class_="x").text)
""",
    "lxml": """
from lxml import etree, html
root = etree.fromstring(b"<r><i n='1'/><i n='2'/></r>")
assert root.xpath("sum(i/@n)") == 3.0
sheet = etree.XSLT(etree.XML(
    '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
    '<xsl:template match="/"><o><xsl:value-of select="count(//i)"/></o></xsl:template></xsl:stylesheet>'))
assert sheet(root).getroot().text == "2"
print("lxml:", html.fromstring("<p>a<b>c").text_content())
""",
    "html5lib": """
import io, html5lib, pandas as pd
tree = html5lib.parse("<table><tr><td>1<td>2", namespaceHTMLElements=False)
assert [cell.text for cell in tree.iter("td")] == ["1", "2"]
assert pd.read_html(io.StringIO("<table><tr><td>1<td>2"), flavor="html5lib")[0].iloc[0].tolist() == [1, 2]
print("html5lib:", tree.tag)
""",
    "markdown": """
import markdown
page = markdown.markdown("# T\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |", extensions=["tables", "fenced_code"])
assert "<h1>T</h1>" in page and "<td>2</td>" in page
print("markdown:", len(page))
""",
    "jinja2": """
import jinja2, pandas as pd
text = jinja2.Template("{% for n in names %}{{ n|upper }} {% endfor %}").render(names=["a", "b"])
assert text == "A B "
styled = pd.DataFrame({"x": [1.5]}).style.format("{:.2f}").background_gradient().to_html()
assert "1.50" in styled and "background-color" in styled
print("jinja2:", text)
""",
    "pyyaml": """
import yaml
document = {"a": [1, 2.5, None], "b": {"c": "\\u00e9"}}
assert yaml.safe_load(yaml.safe_dump(document, allow_unicode=True)) == document
assert yaml.load("a: 1", Loader=yaml.CSafeLoader) == {"a": 1}
print("pyyaml:", yaml.safe_dump([1]).strip())
""",
    "orjson": """
import datetime, numpy as np, orjson
packed = orjson.dumps({"t": datetime.date(2026, 1, 2), "a": np.arange(3)}, option=orjson.OPT_SERIALIZE_NUMPY)
assert orjson.loads(packed) == {"t": "2026-01-02", "a": [0, 1, 2]}
print("orjson:", packed.decode())
""",
    "pydantic": """
import pydantic
class Row(pydantic.BaseModel):
    shop: str
    sold: pydantic.NonNegativeInt
assert Row.model_validate_json('{"shop": "a", "sold": "3"}').sold == 3
try:
    Row(shop="a", sold=-1)
    raise SystemExit("a negative number was accepted")
except pydantic.ValidationError as error:
    assert error.errors()[0]["type"] == "greater_than_equal"
print("pydantic:", sorted(Row.model_json_schema()["properties"]))
""",
    "regex": """
import regex
assert regex.findall(r"\\p{Lu}\\p{Ll}+", "Zo\\u00eb und \\u00d6zil") == ["Zo\\u00eb", "\\u00d6zil"]
assert regex.search(r"(?:interpreter){e<=2}", "an intrepreter")
print("regex:", regex.fullmatch(r"(?P<n>\\d)+", "123").captures("n"))
""",
    "chardet": """
import chardet
text = "\\u041f\\u0440\\u043e\\u0434\\u0430\\u0436\\u0438 \\u0437\\u0430 \\u043f\\u0435\\u0440\\u0432\\u044b\\u0439 \\u043a\\u0432\\u0430\\u0440\\u0442\\u0430\\u043b \\u0432\\u044b\\u0440\\u043e\\u0441\\u043b\\u0438. " * 5
guess = chardet.detect(text.encode("cp1251"))
assert text.encode("cp1251").decode(guess["encoding"]) == text
print("chardet:", guess["encoding"])
""",
    "rapidfuzz": """
from rapidfuzz import fuzz, process
found = process.extractOne("Munchen", ["M\\u00fcnchen", "Hamburg", "Berlin"], scorer=fuzz.WRatio)
assert found[0] == "M\\u00fcnchen"
print("rapidfuzz:", round(found[1]))
""",
    "nltk": """
from nltk import FreqDist, ngrams
from nltk.metrics import edit_distance
from nltk.stem import PorterStemmer
from nltk.tokenize import RegexpTokenizer, TreebankWordTokenizer
words = TreebankWordTokenizer().tokenize("It isn't raining, they said.")
assert words == ["It", "is", "n't", "raining", ",", "they", "said", "."]
assert PorterStemmer().stem("running") == "run" and edit_distance("rain", "shine") == 3
print("nltk:", FreqDist(ngrams(RegexpTokenizer(r"\\w").tokenize("abab"), 2)).most_common(1))
""",
    "tabulate": """
import pandas as pd, tabulate
table = tabulate.tabulate([["a", 1.5]], headers=["k", "v"], tablefmt="github")
assert table.splitlines()[-1] == "| a   | 1.5 |"
assert "|" in pd.DataFrame({"x": [1]}).to_markdown()
print("tabulate:", len(table))
""",
    "rich": """
import io
from rich.console import Console
from rich.table import Table
table = Table(title="Sales")
table.add_column("shop")
table.add_row("[bold]a[/bold]")
out = io.StringIO()
Console(file=out, width=40).print(table)
assert "Sales" in out.getvalue() and "shop" in out.getvalue() and "[bold]" not in out.getvalue()
print("rich:", len(out.getvalue().splitlines()))
""",
    "tqdm": """
import io
from tqdm.auto import tqdm
out = io.StringIO()
assert sum(tqdm(range(100), file=out, desc="count")) == 4950
assert "100/100" in out.getvalue()
print("tqdm:", "count" in out.getvalue())
""",
    "python-dateutil": """
import datetime
from dateutil import parser, relativedelta, rrule, tz
assert parser.parse("3 March 2026 14:05") == datetime.datetime(2026, 3, 3, 14, 5)
assert datetime.date(2024, 2, 29) + relativedelta.relativedelta(years=1) == datetime.date(2025, 2, 28)
start = datetime.datetime(2026, 1, 1, tzinfo=tz.gettz("America/New_York"))
assert start.utcoffset() == datetime.timedelta(hours=-5)
print("python-dateutil:", len(list(rrule.rrule(rrule.WEEKLY, count=4, dtstart=start))))
""",
    "pytz": """
import datetime, pytz
noon = pytz.timezone("Europe/Berlin").localize(datetime.datetime(2026, 7, 1, 12))
assert noon.astimezone(pytz.utc).hour == 10
print("pytz:", noon.tzname())
""",
    "tzdata": """
import datetime, importlib.resources, zoneinfo
assert importlib.resources.files("tzdata").joinpath("zoneinfo/Asia/Kolkata").is_file()
zone = zoneinfo.ZoneInfo("Asia/Kolkata")
assert datetime.datetime(2026, 1, 1, tzinfo=zone).utcoffset() == datetime.timedelta(hours=5, minutes=30)
print("tzdata:", len(zoneinfo.available_timezones()) > 400)
""",
    "sqlalchemy": """
import pandas as pd, sqlalchemy as sa
engine = sa.create_engine("sqlite:///cell.db")
pd.DataFrame({"shop": ["a", "b"], "sold": [3, 4]}).to_sql("sales", engine, index=False)
with engine.connect() as connection:
    total = connection.execute(sa.text("SELECT sum(sold) FROM sales WHERE sold > :n"), {"n": 3}).scalar_one()
assert total == 4 and pd.read_sql("SELECT * FROM sales", engine).shape == (2, 2)
engine.dispose()
print("sqlalchemy:", total)
""",
    "shapely": """
import shapely
from shapely import wkt
square, disc = shapely.box(0, 0, 2, 2), shapely.Point(2, 1).buffer(1)
assert abs(square.intersection(disc).area - 3.14 / 2) < 0.01
assert shapely.STRtree([square, disc]).query(shapely.Point(0.5, 0.5)).tolist() == [0]
print("shapely:", wkt.dumps(square.centroid, trim=True))
""",
    "requests": """
import http.server, threading, requests
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
answer = requests.post(f"http://127.0.0.1:{server.server_port}/", json={"a": 1}, timeout=10)
server.shutdown()
server.server_close()
assert answer.status_code == 200 and answer.json() == {"a": 1}
print("requests:", answer.status_code)
""",
    "httpx2": """
import asyncio, http.server, threading, httpx2
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
with httpx2.Client(base_url=base, timeout=10) as client:
    assert client.get("/a", params={"q": "1"}).text == "/a?q=1"
async def both():
    async with httpx2.AsyncClient(base_url=base, timeout=10) as client:
        return [answer.text for answer in await asyncio.gather(client.get("/b"), client.get("/c"))]
found = []
runner = threading.Thread(target=lambda: found.extend(asyncio.run(both())))
runner.start()
runner.join()
server.shutdown()
server.server_close()
assert found == ["/b", "/c"]
print("httpx2:", found)
""",
    "pytest": """
import pathlib, pytest
pathlib.Path("test_cell.py").write_text("def test_sum():\\n    assert 1 + 1 == 2\\n\\ndef test_bad():\\n    assert 1 == 2\\n")
class Count:
    passed = failed = 0
    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.passed += report.passed
            self.failed += report.failed
count = Count()
status = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", "test_cell.py"], plugins=[count])
assert status == 1 and (count.passed, count.failed) == (1, 1)
print("pytest:", count.passed, count.failed)
""",
}
