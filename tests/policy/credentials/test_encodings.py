"""Laws of encodings: each form in which a message could contain a text."""

from base64 import b64encode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.credentials.encodings import forms_in_base64, guarded_forms, raw_of


@given(st.binary(min_size=6, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_of_whatever_holds_a_text_holds_one_of_its_forms(
    text: bytes, before: bytes, after: bytes
) -> None:
    whole = before + text + after

    for coded in (b64encode(whole), urlsafe_b64encode(whole)):
        assert any(form in coded for form in forms_in_base64(text))


def test_a_value_is_guarded_plain_in_hex_quoted_and_as_it_was_sent() -> None:
    value, sent = b"a/b+c", b"Basic eDphL2IrYw=="

    forms = guarded_forms(value, sent)

    assert {value, value.hex().encode(), value.hex().upper().encode(), sent[6:]} <= set(forms)


def test_bytes_that_are_not_utf_8_come_back_as_they_were() -> None:
    assert raw_of(b"/\xff\xfe".decode("utf-8", "surrogateescape")) == b"/\xff\xfe"
