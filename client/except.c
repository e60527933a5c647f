/* except.c - see except.h. */
#include "client/except.h"

/* Python's builtin exceptions below BaseException, each with the one that it is a kind of. */
static const struct {
    const char *name, *base;
} builtin_exceptions[] = {
    { "Exception", "BaseException" },
    { "GeneratorExit", "BaseException" },
    { "KeyboardInterrupt", "BaseException" },
    { "SystemExit", "BaseException" },
    { "ArithmeticError", "Exception" },
    { "FloatingPointError", "ArithmeticError" },
    { "OverflowError", "ArithmeticError" },
    { "ZeroDivisionError", "ArithmeticError" },
    { "AssertionError", "Exception" },
    { "AttributeError", "Exception" },
    { "BufferError", "Exception" },
    { "EOFError", "Exception" },
    { "ImportError", "Exception" },
    { "ModuleNotFoundError", "ImportError" },
    { "LookupError", "Exception" },
    { "IndexError", "LookupError" },
    { "KeyError", "LookupError" },
    { "MemoryError", "Exception" },
    { "NameError", "Exception" },
    { "UnboundLocalError", "NameError" },
    { "OSError", "Exception" },
    { "BlockingIOError", "OSError" },
    { "ChildProcessError", "OSError" },
    { "ConnectionError", "OSError" },
    { "BrokenPipeError", "ConnectionError" },
    { "ConnectionAbortedError", "ConnectionError" },
    { "ConnectionRefusedError", "ConnectionError" },
    { "ConnectionResetError", "ConnectionError" },
    { "FileExistsError", "OSError" },
    { "FileNotFoundError", "OSError" },
    { "InterruptedError", "OSError" },
    { "IsADirectoryError", "OSError" },
    { "NotADirectoryError", "OSError" },
    { "PermissionError", "OSError" },
    { "ProcessLookupError", "OSError" },
    { "TimeoutError", "OSError" },
    { "ReferenceError", "Exception" },
    { "RuntimeError", "Exception" },
    { "NotImplementedError", "RuntimeError" },
    { "RecursionError", "RuntimeError" },
    { "StopAsyncIteration", "Exception" },
    { "StopIteration", "Exception" },
    { "SyntaxError", "Exception" },
    { "IndentationError", "SyntaxError" },
    { "TabError", "IndentationError" },
    { "SystemError", "Exception" },
    { "TypeError", "Exception" },
    { "ValueError", "Exception" },
    { "UnicodeError", "ValueError" },
    { "UnicodeDecodeError", "UnicodeError" },
    { "UnicodeEncodeError", "UnicodeError" },
    { "UnicodeTranslateError", "UnicodeError" },
    { "Warning", "Exception" },
    { "BytesWarning", "Warning" },
    { "DeprecationWarning", "Warning" },
    { "EncodingWarning", "Warning" },
    { "FutureWarning", "Warning" },
    { "ImportWarning", "Warning" },
    { "PendingDeprecationWarning", "Warning" },
    { "ResourceWarning", "Warning" },
    { "RuntimeWarning", "Warning" },
    { "SyntaxWarning", "Warning" },
    { "UnicodeWarning", "Warning" },
    { "UserWarning", "Warning" },
};

/* What a builtin exception is a kind of; NULL for what is none. */
static const char *
base_of(apm_str name)
{
    for (size_t i = 0; i < sizeof(builtin_exceptions) / sizeof(*builtin_exceptions); i++)
        if (apm_str_eqz(name, builtin_exceptions[i].name))
            return builtin_exceptions[i].base;
    return NULL;
}

static bool
is_builtin(const apm_exception *exc)
{
    return exc->module.len == 0 || apm_str_eqz(exc->module, "builtins");
}

bool
apm_exception_is(const apm_exception *exc, const char *name)
{
    if (strcmp(name, "IOError") == 0 || strcmp(name, "EnvironmentError") == 0)
        name = "OSError"; /* Python's aliases */
    if (strncmp(name, "builtins.", 9) == 0)
        name += 9;
    if (!is_builtin(exc)) {
        size_t len = exc->module.len;
        if (strncmp(name, exc->module.p, len) == 0 && name[len] == '.' &&
            apm_str_eqz(exc->type, name + len + 1))
            return true;
        /* Every class of exceptions that we hear of is below Exception; of its other bases we know
         * nothing. */
        return strcmp(name, "Exception") == 0 || strcmp(name, "BaseException") == 0;
    }
    if (!base_of(exc->type)) /* an exception that this Python has not, or BaseException itself */
        return apm_str_eqz(exc->type, name) || strcmp(name, "BaseException") == 0 ||
               (strcmp(name, "Exception") == 0 && !apm_str_eqz(exc->type, "BaseException"));
    for (apm_str kind = exc->type; apm_str_is(kind); kind = apm_strz(base_of(kind)))
        if (apm_str_eqz(kind, name))
            return true;
    return false;
}

bool
apm_exception_in(const apm_exception *exc, const char *const *names)
{
    for (; names && *names; names++)
        if (apm_exception_is(exc, *names))
            return true;
    return false;
}

/* str(exc): one string argument as it is (but KeyError shows its repr), nothing for none, the tuple
 * for several. */
static void
add_str(apm_buf *buf, const apm_exception *exc)
{
    apm_json args = { APM_JSON_ARRAY, exc->args };
    if (!apm_str_is(exc->args) || apm_json_count(args) == 0)
        return;
    apm_buf_addz(buf, ": ");
    if (apm_json_count(args) > 1) {
        apm_json_repr(buf, args, true, 4096);
        return;
    }
    apm_json only = apm_json_at(args, 0);
    apm_arena arena = { 0 };
    apm_str text;
    if (only.type == APM_JSON_STRING && !apm_str_eqz(exc->type, "KeyError") &&
        apm_json_string(only, "message", &arena, &text, NULL) == APIUM_OK)
        apm_buf_adds(buf, text);
    else
        apm_json_repr(buf, only, false, 4096);
    apm_arena_clear(&arena);
}

void
apm_exception_line(apm_buf *buf, const apm_exception *exc)
{
    if (!is_builtin(exc)) {
        apm_buf_adds(buf, exc->module);
        apm_buf_addc(buf, '.');
    }
    apm_buf_adds(buf, exc->type);
    add_str(buf, exc);
}
