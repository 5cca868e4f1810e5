-- Rebuilding latest from records of the archive.

local function offer_one(keys, args, at, changed)
  local device = args[at]
  local before = redis.call('HGET', keys[2], device)
  local id, received_ms, timestamp_us = tonumber(args[at + 1]), tonumber(args[at + 2]), tonumber(args[at + 3])
  local after = offer(before, tonumber(args[at + 4]), id, received_ms, timestamp_us, args[at + 5], tonumber(args[at + 6]))
  if after ~= before then
    redis.call('HSET', keys[2], device, after)
    redis.call('ZADD', keys[3], 0, device)
    if changed[#changed] ~= device then
      changed[#changed + 1] = device
    end
  end
end

-- Offers records of the archive to their devices' latest. KEYS: store latest devices deleting. ARGV: store id, how
-- many devices had been deleted before the caller looked for files, then for each record: device, id, ms of arrival,
-- timestamp, flags as in offer_candidates, the record's bytes, ms at which the device was last seen.
-- Returns 1, or -1 and takes nothing if a device was deleted since: its records may be among these. One that is being
-- deleted is left out.
local function offer_archived(keys, args)
  if (redis.call('HGET', keys[1], 'deleted') or '0') ~= args[2] then
    return -1
  end
  local is_any_deleted = redis.call('EXISTS', keys[4]) == 1
  local changed = {}
  for at = 3, #args, 7 do
    local mark = is_any_deleted and read_mark(redis.call('HGET', keys[4], args[at]))
    if not mark or tonumber(args[at + 1]) >= mark.before_id then
      offer_one(keys, args, at, changed)
    end
  end
  announce(changed)
  return 1
end

-- KEYS: store. ARGV: store id. Notes that files no longer hold what they did: who looked for records in them before
-- looks again (offer_archived).
local function note_erased(keys)
  redis.call('HINCRBY', keys[1], 'deleted', 1)
  return 1
end

-- KEYS: store. ARGV: store id. Notes that latest lacks what the archive knows.
local function outdated(keys)
  redis.call('HSET', keys[1], 'rebuild', '1')
  return 1
end

-- KEYS: store. ARGV: store id. Notes that latest was rebuilt.
local function rebuilt(keys)
  redis.call('HSET', keys[1], 'rebuild', '0')
  return 1
end

-- Makes a device's latest anew of records that the caller found, since some of what it shows are no longer there. KEYS:
-- store latest devices stream. ARGV: store id, device, its encoded latest and its stream's last id as the caller knew
-- them before it looked for the records, then for each record: id, ms of arrival, timestamp, flags as in
-- offer_candidates, the record's bytes, ms at which the device was last seen. Without any the device goes.
-- Returns 1; 0 and does nothing if the device has another latest, or more records, by now.
local function replace_latest(keys, args)
  local last = redis.call('EXISTS', keys[4]) == 1 and last_id(keys[4]) or ''
  if redis.call('HGET', keys[2], args[2]) ~= args[3] or last ~= args[4] then
    return 0
  end
  local latest
  for at = 5, #args, 6 do
    local id, received_ms, timestamp_us = tonumber(args[at]), tonumber(args[at + 1]), tonumber(args[at + 2])
    latest = offer(latest, tonumber(args[at + 3]), id, received_ms, timestamp_us, args[at + 4], tonumber(args[at + 5]))
  end
  if latest then
    redis.call('HSET', keys[2], args[2], latest)
  else
    redis.call('HDEL', keys[2], args[2])
    redis.call('ZREM', keys[3], args[2])
  end
  announce({ args[2] })
  return 1
end

register('offer_archived', of_store(offer_archived), {})
register('note_erased', of_store(note_erased), ALLOW_OOM)
register('outdated', of_store(outdated), ALLOW_OOM)
register('rebuilt', of_store(rebuilt), ALLOW_OOM)
register('replace_latest', of_store(replace_latest), ALLOW_OOM)
