"""What a record, a key, a problem, a day is. Stands on nothing of Whimbrel's but itself. Imported by everything."""
