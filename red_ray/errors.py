"""Every error that red_ray raises on purpose.

    RedRayError
    ├── UserError                 a mistake the user can mend; the command exits 2
    │   ├── ConfigError           an unknown key, a value out of range, two that conflict
    │   ├── DataError             a file that cannot be read as the table it should be
    │   ├── BundleError           a bundle that is damaged, foreign or of another version
    │   ├── EncoderError          a model that cannot be found or does not load
    │   ├── GoalError             a goal that the calibration rows cannot promise
    │   ├── OutputError           a place that cannot be written
    │   └── RequestRefused        the endpoint refuses a request: its token, size or values
    └── RunError                  a failure with everything kept; the command exits 1
        ├── JudgeError            a judge that gave no answer
        │   ├── JudgeTimeout
        │   ├── JudgeUnavailable  connection refused, 408, 429, 5xx: worth another try
        │   ├── JudgeRefused      401 to 404: no retry can help
        │   └── SchemaRefused     the server takes no answer schema: ask again without one
        ├── EndpointError         an endpoint that answers what cannot be used
        │   └── EndpointUnavailable   away or overloaded, also after some tries
        ├── StorageError          a disk that is full or went away
        └── ForgottenError        a restarted worker that must be given its rows again

Errors cross process borders: every constructor takes positional arguments and
survives a pickle round trip (tested for all of them).
"""


class RedRayError(Exception):
    """Root of the tree; `str(error)` is one line that says what is wrong and how to mend it."""


class UserError(RedRayError):
    """The user can mend it; commands exit with 2."""


class ConfigError(UserError):
    """The configuration is not valid."""


class DataError(UserError):
    """An input table cannot be used."""


class BundleError(UserError):
    """A bundle cannot be trusted or read."""


class EncoderError(UserError):
    """An encoder cannot be loaded."""


class GoalError(UserError):
    """A goal cannot be promised, or two cannot both be."""


class OutputError(UserError):
    """An output cannot be written."""


class RequestRefused(UserError):
    """The endpoint refuses the request as it is; `status` is the HTTP status, where one came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class RunError(RedRayError):
    """The run failed; what was paid for is kept and commands exit with 1."""


class JudgeError(RunError):
    """A judge gave no answer."""


class JudgeTimeout(JudgeError):
    """The judge did not answer in time."""


class JudgeUnavailable(JudgeError):
    """The judge cannot be reached or is overloaded; another try may succeed.

    `result` is the word under which the request is counted; `never_left`: no connection came
    about, so that nothing can have been done for it.
    """

    def __init__(
        self,
        message: str,
        retry_after_s: float | None = None,
        result: str = "unreachable",
        never_left: bool = False,
    ) -> None:
        super().__init__(message, retry_after_s, result, never_left)
        self.never_left = never_left
        self.retry_after_s = retry_after_s
        self.result = result

    def __str__(self) -> str:
        return str(self.args[0])


class JudgeRefused(JudgeError):
    """The judge refuses the request; the key, the model or the address is wrong."""


class SchemaRefused(JudgeError):
    """The server takes no answer schema; the judge asks without one from now on."""


class EndpointError(RunError):
    """The endpoint gave no answer that can be used; `status` is None where none came at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class EndpointUnavailable(EndpointError):
    """The endpoint cannot be reached or is overloaded; another try may succeed.

    `retry_after_s`: how long it asks to be left alone.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, status)
        self.args = (message, status, retry_after_s)
        self.retry_after_s = retry_after_s


class StorageError(RunError):
    """Something could not be stored."""


class ForgottenError(RunError):
    """A worker was restarted and has to be given its rows again; its handle sees to that."""


def last_line(error: object, otherwise: str = "") -> str:
    """The last line of what an error says, below the traceback that Ray quotes.

    Args:
        error: an error, or its text.
        otherwise: for one without words; the name of its class where that is not given.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else otherwise or type(error).__name__
