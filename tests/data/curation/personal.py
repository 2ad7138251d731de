"""Invented sentences with personal data, and decoys that only look like it. Numbers are reserved ones if possible."""

from __future__ import annotations

WITH: list[tuple[str, dict[str, str]]] = [
    ("Write to anna.lee+work@mail-hub.co.uk, please.", {"anna.lee+work@mail-hub.co.uk": "EMAIL"}),
    ("mailto:bob_77@uni.edu (Bob)", {"bob_77@uni.edu": "EMAIL"}),
    ("Send it to José@correo.es or jo@x.io.", {"José@correo.es": "EMAIL", "jo@x.io": "EMAIL"}),
    ("Call (212) 736-5000 after six.", {"(212) 736-5000": "PHONE"}),
    ("My cell is 415-555-2671.", {"415-555-2671": "PHONE"}),
    ("Call +44 20 7946 0958, or +49 30 901820.", {"+44 20 7946 0958": "PHONE", "+49 30 901820": "PHONE"}),
    ("tel: +1-650-253-0000", {"+1-650-253-0000": "PHONE"}),
    ("text 650.253.0000 now", {"650.253.0000": "PHONE"}),
    ("WhatsApp +33612345678", {"+33612345678": "PHONE"}),
    ("Pay to DE89 3704 0044 0532 0130 00 today.", {"DE89 3704 0044 0532 0130 00": "IBAN"}),
    ("IBAN GB82WEST12345698765432.", {"GB82WEST12345698765432": "IBAN"}),
    ("FR14 2004 1010 0505 0001 3M02 606 is mine", {"FR14 2004 1010 0505 0001 3M02 606": "IBAN"}),
    ("My Visa is 4111 1111 1111 1111, exp 12/27.", {"4111 1111 1111 1111": "CARD"}),
    ("card 5500-0055-5555-5559", {"5500-0055-5555-5559": "CARD"}),
    ("amex 378282246310005!", {"378282246310005": "CARD"}),
    ("SSN: 536-90-4399.", {"536-90-4399": "SSN"}),
    ("I log in from 93.184.216.34.", {"93.184.216.34": "IP"}),
    ("Server at 2606:4700:4700::1111 answers", {"2606:4700:4700::1111": "IP"}),
    ("ping 8.8.8.8:53", {"8.8.8.8": "IP"}),
]

DECOYS: list[str] = [
    "Python 3.11.7 and torch 2.13.0 on CUDA 12.4",
    "upgrade to version 10.15.7.1 or v93.184.216.34",
    "The war lasted 1939-1945, not 1914-1918.",
    "It costs $1,299.99, or 1.299,99 EUR; 2 for 2500000.",
    "On 2024-03-15 at 12:30:45 the meeting began.",
    "ISBN 978-3-16-148410-0 is on page 1234567.",
    "Section 4.2.1.3, see RFC 2606.",
    "The server runs on 127.0.0.1, or 192.168.0.10 at home.",
    "pi is 3.14159265358979, e is 2.718281828459045",
    "1234 5678 9012 3456 is no card: its check digit is wrong.",
    "DE00 3704 0044 0532 0130 00 is no account: its check digits are wrong.",
    "000-12-3456 and 666-12-3456 were never issued.",
    "The population is 8336817 of 331002651.",
    "x@y is no address, and neither is @handle or user@localhost.",
    "Write to someone@example.com or you@example.org.",
    "Order number 20240315123456, tracking 1Z999AA10123456784",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "std::vector<int> a; foo::bar::baz(1234567);",
    "Add 3456789 and 2345678, then divide by 1000003.",
    "MAC 00:1A:2B:3C:4D:5E, at 10:20:30",
    "2.5e10, 1e-5, 0x7fffffff, 1_000_000_000",
    "Scores were 21-19, 15-21, 21-18 and 1-0 in 2019-2020.",
    "latitude 40.712776, longitude -74.005974",
    "|1|2|3|4|5|6|7|8|9|10|",
]

MISTAKEN: list[tuple[str, str]] = [
    ("built with CUDA 12.4.1.131", "12.4.1.131"),
]
"""Four numbers with dots are an address to us where no word before them says otherwise."""
MISSED: list[str] = [
    "My name is Anna Lee and I live at 12 Harbour Street.",
    "born on 3 March 1988 in Ulm",
    "anna dot lee at mail-hub dot com",
    "call 4155552671",
]
"""What patterns cannot tell, or only at the price of too many mistakes."""
