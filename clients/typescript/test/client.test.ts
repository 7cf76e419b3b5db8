/** The client against a server at ONEHOP_URL: `node --test`. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Onehop, OnehopError, UnreachableError } from "../dist/index.js";

const onehop = new Onehop();

test("one execution in a sandbox of its own", async () => {
  const done = await onehop.run("print('hi')\n6 * 7", { files: { "a.txt": "x", "b.bin": new Uint8Array([0, 255]) } });
  assert.equal(done.status, "ok");
  assert.equal(done.stdout, "hi\n");
  assert.equal(done.text, "42");
  const files = await onehop.run("import os; sorted(os.listdir()), open('b.bin', 'rb').read()", {
    files: { "a.txt": "x", "b.bin": new Uint8Array([0, 255]) },
  });
  assert.equal(files.text, "(['a.txt', 'b.bin'], b'\\x00\\xff')");
});

test("a session keeps its variables; output comes as it is written", async () => {
  await using session = await onehop.session({ metadata: { user: "ada" }, env: { REGION: "north" } });
  const heard: string[] = [];
  const done = await session.run(
    "import os, sys, time\nfor n in range(3): print(n, flush=True); time.sleep(0.05)\n" +
      "print('no', file=sys.stderr)\nx = 5\nos.environ['REGION']",
    { onStdout: (text) => heard.push(text) },
  );
  assert.equal(heard.join(""), "0\n1\n2\n");
  assert.ok(heard.length >= 2);
  assert.equal(done.stderr, "no\n");
  assert.equal(done.text, "'north'");
  assert.equal((await session.run("x + 1")).text, "6");
  const failed = await session.run("1 / 0");
  assert.equal(failed.status, "error");
  assert.equal(failed.error?.name, "ZeroDivisionError");
  assert.throws(() => failed.orThrow(), /ZeroDivisionError/);
  const figure = await session.run("import matplotlib.pyplot as plt; plt.plot([1]); plt.show()");
  assert.equal(figure.pictures[0]?.mediaType, "image/png");
  const kinds: string[] = [];
  for await (const event of session.stream("print(1); 2")) kinds.push(event.kind);
  assert.deepEqual(kinds, ["stdout", "result", "end"]);
  const other = await session.createContext("plots");
  assert.equal((await session.run("'x' in globals()", { context: other })).text, "False");
  const command = await session.command("echo $REGION; exit 3");
  assert.deepEqual([command.stdout, command.answer.exit_code], ["north\n", 3]);
  assert.equal((await session.info()).metadata["user"], "ada");
  assert.ok((await onehop.sessions()).some((one) => one.id === session.id));
  assert.equal((await onehop.attach(session.id).run("x")).text, "5");
});

test("files", async () => {
  await using session = await onehop.session();
  const raw = new Uint8Array(300_000).map((_, at) => at % 256);
  await session.files.write("deep/a b.bin", raw);
  assert.deepEqual(await session.files.read("deep/a b.bin"), raw);
  await session.files.write("n.txt", "Grüße");
  assert.equal(await session.files.text("n.txt"), "Grüße");
  await session.files.move("n.txt", "deep/m.txt");
  assert.deepEqual((await session.files.list("deep")).map((one) => one.path), ["deep/a b.bin", "deep/m.txt"]);
  await session.files.delete("deep", { recursive: true });
  assert.deepEqual(await session.files.list(), []);
  const made = await session.run("open('made.txt', 'w').write('x');");
  assert.deepEqual(made.files.map((one) => one.path), ["made.txt"]);
});

test("the code calls functions of this program, in parallel where it asks so", async () => {
  await using session = await onehop.session();
  let running = 0;
  let most = 0;
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const done = await session.run(
    "import asyncio\nfrom tools import weather\n" +
      "await asyncio.gather(*(weather(city=c) for c in ('Oslo', 'Rome', 'Lima')))",
    {
      tools: {
        weather: {
          description: "The weather of a city.",
          parameters,
          execute: async ({ city }: { city: string }) => {
            most = Math.max(most, ++running);
            await new Promise((resume) => setTimeout(resume, 50));
            running--;
            return { city, degrees: city.length };
          },
        },
      },
    },
  );
  assert.equal(done.status, "ok", done.error?.traceback);
  assert.match(done.text ?? "", /'city': 'Lima', 'degrees': 4/);
  assert.equal(most, 3);
  const failed = await session.run("from tools import broken; broken()", {
    tools: { broken: { parameters: { type: "object", properties: {} }, execute: () => { throw new RangeError("no"); } } },
  });
  assert.equal(failed.status, "error");
  assert.match(failed.error?.traceback ?? "", /RangeError: no/);
});

test("an abort interrupts the code and keeps the variables", async () => {
  await using session = await onehop.session();
  await session.run("n = 1");
  const abort = new AbortController();
  const endless = session.run("n = 2\nprint('on', flush=True)\nwhile True: pass", {
    signal: abort.signal,
    onStdout: () => abort.abort(),
  });
  await assert.rejects(endless, { name: "AbortError" });
  for (;;) {
    try {
      assert.equal((await session.run("n")).text, "2");
      break;
    } catch (error) {
      if (!(error instanceof OnehopError && error.type === "session-busy")) throw error;
    }
  }
});

test("a connection that breaks is made again; nothing is lost and nothing runs twice", async () => {
  let answers = 0;
  const broken: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (!String(input).endsWith("/execute") || answers++ > 0) return response;
    const reader = response.body!.getReader();
    const first = await reader.read();
    const cut = new ReadableStream({
      start(controller) {
        controller.enqueue(first.value);
        controller.error(new TypeError("the connection broke"));
        void reader.cancel();
      },
    });
    return new Response(cut, { status: response.status, headers: response.headers });
  };
  const shaky = new Onehop({ fetch: broken });
  await using session = await shaky.session();
  const done = await session.run("import time\nfor n in range(5): print(n, flush=True); time.sleep(0.1)\n'end'");
  assert.equal(done.stdout, "0\n1\n2\n3\n4\n");
  assert.equal(done.text, "'end'");
});

test("errors say what to do", async () => {
  await assert.rejects(onehop.attach("ses_none").run("1"), (error: OnehopError) => {
    assert.deepEqual([error.status, error.type], [404, "session-not-found"]);
    return true;
  });
  await assert.rejects(onehop.run(" "), (error: OnehopError) => {
    assert.deepEqual([error.type, error.extra["field"]], ["invalid-request", "code"]);
    return true;
  });
  await assert.rejects(new Onehop({ url: "http://127.0.0.1:9" }).sessions(), UnreachableError);
  await onehop.attach("ses_none").close();
});
