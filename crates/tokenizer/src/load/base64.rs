//! Base64 (<https://www.rfc-editor.org/rfc/rfc4648#section-4>), in which tokenizer.json holds character maps.

/// The bytes of an encoded text. `Err` says what is wrong with it.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        let problem = format!(
            "found base64 of {} characters, expected a multiple of 4",
            text.len()
        );
        return Err(problem);
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for (at, byte) in digits.bytes().enumerate() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(format!("found byte {byte:#04x} at {at}, expected base64")),
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decodes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("+/+/", b"\xFB\xFF\xBF"),
        ] {
            assert_eq!(decode(text).as_deref(), Ok(bytes));
        }
        for text in ["Z", "Zg=", "Z===", "Zg!=", "=Zg=", "Z\u{e9}a"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
