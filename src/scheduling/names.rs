//! The syntax of names, label keys and label values, with upstream's own texts for faults.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/apimachinery/pkg/api/validate/content (kube.go, dns.go, errors.go). Lengths are in
//! bytes. Each `*_faults` function returns the texts of the faults.

const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_KEY_EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const DNS_1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_1123_LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const DNS_1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS_1123_SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

const LABEL_MAX_LENGTH: usize = 63;
const SUBDOMAIN_MAX_LENGTH: usize = 253;

/// Returns the faults of a label key, upstream's qualified name: an optional DNS subdomain with a `/`, and a name (`IsLabelKey`).
/// Empty for a valid key.
pub fn label_key_faults(key: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_fault(LABEL_KEY_RULE, LABEL_KEY, &LABEL_KEY_EXAMPLES)
            )];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            faults
                .extend(dns_1123_subdomain_faults(prefix).iter().map(|fault| format!("prefix part {fault}")));
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX_LENGTH {
        faults.push(format!("name part {}", length_fault(LABEL_MAX_LENGTH)));
    }
    if !is_label_text(name) {
        let fault = regex_fault(LABEL_KEY_RULE, LABEL_KEY, &LABEL_KEY_EXAMPLES);
        faults.push(format!("name part {fault}"));
    }
    faults
}

/// Returns the faults of a label value, which is empty or a name (`IsLabelValue`). Empty for a valid value.
pub fn label_value_faults(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_MAX_LENGTH {
        faults.push(length_fault(LABEL_MAX_LENGTH));
    }
    if !value.is_empty() && !is_label_text(value) {
        let pattern = format!("({LABEL_KEY})?");
        faults.push(regex_fault(LABEL_VALUE_RULE, &pattern, &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// Returns the faults of a DNS label, such as the name of a namespace (`IsDNS1123Label`). Empty for a valid label.
pub fn dns_1123_label_faults(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > LABEL_MAX_LENGTH {
        faults.push(length_fault(LABEL_MAX_LENGTH));
    }
    if !is_dns_label(value) {
        faults.push(if is_dns_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_fault(DNS_1123_LABEL_RULE, DNS_1123_LABEL, &["my-name", "123-abc"])
        });
    }
    faults
}

/// Returns the faults of a DNS subdomain, such as the name of a node or a DaemonSet (`IsDNS1123Subdomain`). Empty for a valid
/// subdomain.
pub fn dns_1123_subdomain_faults(value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if value.len() > SUBDOMAIN_MAX_LENGTH {
        faults.push(length_fault(SUBDOMAIN_MAX_LENGTH));
    }
    if !is_dns_subdomain(value) {
        faults.push(regex_fault(DNS_1123_SUBDOMAIN_RULE, DNS_1123_SUBDOMAIN, &["example.com"]));
    }
    faults
}

/// Replaces `bytes` by `characters` at the end of faults of an object's name or namespace. Upstream counts bytes there too, but
/// calls them characters (staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go `MaxLenError`).
pub fn in_characters(mut faults: Vec<String>) -> Vec<String> {
    for fault in &mut faults {
        if let Some(start) = fault.strip_suffix(" bytes") {
            *fault = format!("{start} characters");
        }
    }
    faults
}

/// Returns true for `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`.
fn is_label_text(text: &str) -> bool {
    is_bounded(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

fn is_dns_label(text: &str) -> bool {
    is_bounded(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-')
}

fn is_dns_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

/// Returns true if `text` starts and ends with an outer byte and has only outer and inner bytes between them. Returns false for an
/// empty text.
fn is_bounded(text: &str, outer: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    outer(first) && outer(last) && bytes.iter().all(|&byte| outer(byte) || inner(byte))
}

fn length_fault(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn regex_fault(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys() {
        for valid in ["a", "EXAMPLE", "a.b_c-d", "example.com/name", &"a".repeat(63)] {
            assert_eq!(label_key_faults(valid), Vec::<String>::new(), "{valid}");
        }
        let counts = [
            ("", 2),
            ("a/", 2),
            ("/name", 1),
            ("a/b/c", 1),
            ("Example.com/x", 1),
            ("-a", 1),
            ("a\n", 1),
            ("ä", 1),
        ];
        for (invalid, count) in counts {
            assert_eq!(
                label_key_faults(invalid).len(),
                count,
                "{invalid:?}: {:?}",
                label_key_faults(invalid)
            );
        }
        assert_eq!(label_key_faults(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert_eq!(label_key_faults("/name"), ["prefix part must be non-empty"]);
    }

    #[test]
    fn label_values() {
        for valid in ["", "a", "A_b.c-9", &"a".repeat(63)] {
            assert_eq!(label_value_faults(valid), Vec::<String>::new(), "{valid}");
        }
        assert_eq!(
            label_value_faults("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(label_value_faults(&format!("{}\n", "a".repeat(63))).len(), 2);
    }

    #[test]
    fn dns_names() {
        assert!(dns_1123_subdomain_faults("node-1.example.com").is_empty());
        assert_eq!(dns_1123_subdomain_faults("a..b").len(), 1);
        assert_eq!(dns_1123_subdomain_faults(&"A".repeat(254)).len(), 2);
        assert_eq!(dns_1123_label_faults("a.b"), ["must not contain dots"]);
        assert!(dns_1123_label_faults("kube-system").is_empty());
    }
}
