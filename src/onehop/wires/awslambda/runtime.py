"""What runs in a function's process: it finds the handler, calls it, and says how that ended.

The text below goes into the kernel. Its errors have the names that AWS's runtime gives them.
"""

from __future__ import annotations

MIME = "application/vnd.onehop.lambda+json"
"""Of what it displays: `error`, and the payload as text."""

SOURCE = """
class _OnehopLambda:
    handler = None

    class Context:
        def __init__(self, given):
            self._deadline_s = __import__("time").monotonic() + given.pop("timeout_s")
            self.__dict__.update(given)

        def get_remaining_time_in_millis(self):
            return max(0, int((self._deadline_s - __import__("time").monotonic()) * 1000))

    @staticmethod
    def find(name):
        import importlib, sys
        module, _, function = name.replace("/", ".").rpartition(".")
        sys.path.insert(0, "/workspace")
        try:
            loaded = importlib.import_module(module)
        except SyntaxError as error:
            raise _OnehopLambda.Failure("Runtime.UserCodeSyntaxError", f"Syntax error in module {module!r}: {error}")
        except ImportError as error:
            raise _OnehopLambda.Failure("Runtime.ImportModuleError", f"Unable to import module {module!r}: {error}")
        try:
            return getattr(loaded, function)
        except AttributeError:
            text = f"Handler {function!r} missing on module {module!r}"
            raise _OnehopLambda.Failure("Runtime.HandlerNotFound", text) from None

    class Failure(Exception):
        pass

    @classmethod
    def run(cls, name, event, context):
        import json, traceback, types
        context = cls.Context(json.loads(context))
        context.client_context = context.client_context and types.SimpleNamespace(**context.client_context)
        try:
            if cls.handler is None:
                cls.handler = cls.find(name)
            result = cls.handler(json.loads(event), context)
            try:
                return False, json.dumps(result, ensure_ascii=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise cls.Failure("Runtime.MarshalError", f"Unable to marshal response: {error}") from None
        except cls.Failure as failure:
            kind, text, trace = *failure.args, []
        except SystemExit as error:
            kind, text, trace = "Runtime.ExitError", f"the function has exited ({error.code})", []
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[1:]
            kind, text, trace = type(error).__name__, str(error), traceback.format_list(frames)
        told = {"errorMessage": text, "errorType": kind, "requestId": context.aws_request_id, "stackTrace": trace}
        return True, json.dumps(told)
"""


def call(handler: str, event: str, context: str) -> str:
    """Code for one invocation; all arguments are texts."""
    return (
        "from IPython.display import publish_display_data as __publish\n"
        f"__failed, __payload = _OnehopLambda.run({handler!r}, {event!r}, {context!r})\n"
        "import json as __json\n"
        f"__publish({{{MIME!r}: __json.dumps({{'error': __failed, 'payload': __payload}})}})\n"
        "del __payload"
    )
