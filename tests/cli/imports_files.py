"""Files as others write them, for tests of `whimbrel import`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HEAD = {
    "mysqldump": """\
-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
--
-- Host: db    Database: tracker's
-- ------------------------------------------------------
-- Server version\t8.0.36

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!50503 SET NAMES utf8mb4 */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
""",
    "mariadb-dump": """\
/*M!999999\\- enable the sandbox mode */\x20
-- MariaDB dump 10.19-11.4.2-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: db    Database: tracker
-- ------------------------------------------------------

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!40101 SET NAMES utf8mb4 */;
/*M!100616 SET @OLD_NOTE_VERBOSITY=@@NOTE_VERBOSITY, NOTE_VERBOSITY=0 */;
""",
}

TABLE = """
--
-- Table structure for table `{name}`
--

DROP TABLE IF EXISTS `{name}`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!50503 SET character_set_client = utf8mb4 */;
CREATE TABLE `{name}` (
  `id` bigint NOT NULL AUTO_INCREMENT,
  `device_id` varchar(255) COLLATE utf8mb4_unicode_ci NOT NULL COMMENT 'its id; (as sent)',
  `timestamp` datetime(6) NOT NULL,
  `location` varchar(255) DEFAULT NULL,
  `speed` decimal(10,2) NOT NULL,
  PRIMARY KEY (`id`),
  KEY `{name}_device` (`device_id`(10),`timestamp`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='a; b';
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `{name}` WRITE;
/*!40000 ALTER TABLE `{name}` DISABLE KEYS */;
{rows}
/*!40000 ALTER TABLE `{name}` ENABLE KEYS */;
UNLOCK TABLES;
"""

OTHER = """
CREATE TABLE `auth_user` (
  `id` int NOT NULL,
  `name` varchar(255) DEFAULT 'it''s'
) ENGINE=InnoDB;
INSERT INTO `auth_user` VALUES (1,'a;b\\'); INSERT INTO `tracking_data` VALUES (99,'no','2026-01-01','x',1);'),(2,NULL);
DELIMITER ;;
/*!50003 CREATE*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `tracking_data` FOR EACH ROW BEGIN
INSERT INTO `tracking_data` VALUES (98,'no','2026-01-01','x',1);
END */;;
DELIMITER ;
"""

END = "\n/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-03-02 10:00:00\n"

Value = str | float | int | None


def escaped(value: Value) -> str:
    """A value as mysqldump writes it."""
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    for character, name in (("\\", "\\\\"), ("\0", "\\0"), ("\n", "\\n"), ("\r", "\\r"), ("'", "\\'"), ('"', '\\"')):
        value = value.replace(character, name)
    return "'" + value.replace("\x1a", "\\Z") + "'"


def insert(name: str, rows: Iterable[Sequence[Value]], per_statement: int = 3, columns: str = "") -> str:
    """The rows of a table, some to a statement."""
    texts = ["(" + ",".join(map(escaped, row)) + ")" for row in rows]
    parts = [texts[at : at + per_statement] for at in range(0, len(texts), per_statement)]
    return "\n".join(f"INSERT INTO `{name}` {columns}VALUES {','.join(part)};" for part in parts)


def dump(
    http: Sequence[Sequence[Value]], tcp: Sequence[Sequence[Value]], kind: str = "mysqldump", per_statement: int = 3
) -> str:
    """A dump of the older service's two tables, and of what else such a database holds."""
    tables = [("tracking_data", http), ("tcp_tracking_data", tcp)]
    texts = [TABLE.format(name=name, rows=insert(name, rows, per_statement)) for name, rows in tables]
    return HEAD[kind] + texts[0] + OTHER + texts[1] + END


GPX = """<?xml version="1.0" encoding="UTF-8"?>
<gpx version="1.1" creator="watch" xmlns="http://www.topografix.com/GPX/1/1"
 xmlns:gpxtpx="http://www.garmin.com/xmlschemas/TrackPointExtension/v2">
<metadata><name>not a device</name><time>2026-03-01T00:00:00Z</time></metadata>
<wpt lat="41.0" lon="29.0"><time>2026-03-01T00:00:00Z</time><name>Pier</name><sym>Flag</sym></wpt>
<trk><name>boat 1</name><trkseg>
<trkpt lat="41.1" lon="29.1"><ele>12.5</ele><time>2026-03-01T00:00:01.250Z</time>
<extensions><gpxtpx:TrackPointExtension><gpxtpx:hr>80</gpxtpx:hr><gpxtpx:speed>10</gpxtpx:speed><gpxtpx:course>90</gpxtpx:course>
</gpxtpx:TrackPointExtension></extensions></trkpt>
<trkpt lat="41.2" lon="29.2"></trkpt>
<trkpt lat="91" lon="29.2"><time>2026-03-01T00:00:03Z</time></trkpt>
</trkseg></trk>
<rte><name>boat 2</name><rtept lat="41.3" lon="29.3"><time>2026-03-01T00:00:02Z</time></rtept></rte>
</gpx>
"""
