"""Three mails over one connection of SMTP, and a refused command. Arguments: address, port, file to send."""
import base64
import smtplib
import sys

with open(sys.argv[3], "rb") as file:
    body = base64.encodebytes(file.read()).decode()
with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), "client.example.org", 10) as smtp:
    for number in range(3):
        smtp.sendmail("a@example.org", ["b@example.org"],
                      f"Subject: {number}\n\n{body if number == 1 else 'short'}\nend of message\n")
    code, _ = smtp.docmd("NONSENSE")
    assert code == 500, code
