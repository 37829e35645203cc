"""Lists the ways to write a path or a method that a naive judge reads unlike the origin."""

# On a host whose only rule for paths is "/ok/**".
PATHS = [
    "/",
    "/okay",
    "/OK/x",
    "/ok/../secret",
    "/ok/..",
    "/ok/./../secret",
    "/ok/%2e%2e/secret",
    "/ok/.%2e/secret",
    "/ok/%2E%2E%2Fsecret",
    "/ok%2fsecret",
    "/ok/%2f..%2fsecret",
    "/ok/x%5c..%5c..%5csecret",
    "/ok/\\..\\secret",
    "/ok//secret",
    "//ok/x",
    "//secret/ok/x",
    "/ok/x;/../secret",
    "/ok/..;/secret",
    "/ok/;x/secret",
    "/ok/%00",
    "/ok/x%00.html",
    "/ok/%252e%252e/secret",
    "/%6fk/x",
    "/secret?/ok/x",
    "/secret/ok/x",
    "/ok/%c0%ae%c0%ae/secret",
    "/ok/..%c0%afsecret",
    "/ok/%zz",
    "/ok/%",
]

# Where "/forbidden/**" is denied and all else is allowed.
FORBIDDEN_SPELLINGS = [
    "/forbidden/x",
    "/forbidden/",
    "//forbidden/x",
    "/./forbidden/x",
    "/x/../forbidden/x",
    "/%66orbidden/x",
    "/forbidden%2fx",
    "/forbidden/%2e%2e/forbidden/x",
    "/forbidden;a/x",
    "/\\forbidden/x",
]

# Fields by which some origins let a request be another than it looks.
OVERRIDES = [
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: DELETE",
    "X-Original-URL: /admin",
    "X-Rewrite-URL: /admin",
    "x-http-method-override: DELETE",
    "X_HTTP_METHOD_OVERRIDE: DELETE",
]
