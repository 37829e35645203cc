"""Ports of protocols that begin neither with TLS nor with HTTP: names for errors and advice.

By the registry of IANA and the manuals of the programs. Nothing is allowed by it. Pure.
"""

# TLS begins later there, if at all.
NEVER_TLS_FIRST = {
    21: "FTP",
    22: "SSH",
    23: "Telnet",
    25: "SMTP",
    110: "POP3",
    143: "IMAP",
    389: "LDAP",
    587: "SMTP",
    873: "rsync",
    1433: "SQL Server",
    3306: "MySQL",
    3690: "Subversion",
    5037: "adb",
    5222: "XMPP",
    5555: "adb",
    5900: "VNC",
    9418: "git's own protocol",
    33060: "MySQL",
}
# Spoken in TLS from the first byte as well.
_OFTEN_PLAIN = {
    1521: "Oracle",
    1883: "MQTT",
    3389: "RDP",
    4222: "NATS",
    5432: "PostgreSQL",
    5672: "AMQP",
    6379: "Redis",
    6432: "PgBouncer",
    9042: "Cassandra",
    9092: "Kafka",
    11211: "memcached",
    27017: "MongoDB",
}
RAW_PORTS = NEVER_TLS_FIRST | _OFTEN_PLAIN
