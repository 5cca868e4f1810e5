-- A device's latest, encoded as entry_codec.py describes: its parts http, other and fix, each a slot or nil, or for fix
-- the number of the part that it equals; then when the device was last seen. Functions change the encoding in place:
-- Lua hashes and interns each string that it creates, so a change creates as few as possible.

local SLOT, SLOT_HEADER = 149, 34
local UNKNOWN = '\148\192\192\192\207\0\0\0\0\0\0\0\0'

-- The channel of shared_state.py: CHANGED. No device's id has a zero byte.
local CHANGED = 'whimbrel:changed'

-- Publishes whose latest has changed, if somebody listens. A user who may not publish stores records all the same.
local function announce(names)
  local listeners = #names > 0 and redis.pcall('PUBSUB', 'NUMSUB', CHANGED)[2] or 0
  if listeners > 0 then
    redis.pcall('PUBLISH', CHANGED, table.concat(names, '\0'))
  end
end

-- Returns where the part after the one at `at` begins, and if there is a slot, its record's timestamp_us and received_ms.
local function read_part(value, at)
  if string.byte(value, at) ~= SLOT then
    return at + 1
  end
  local received_ms, timestamp_us, size = struct.unpack('>I8xI8xxI4', value, at + 11)
  return at + SLOT_HEADER + size, timestamp_us, received_ms
end

-- True if a record replaces one that is there, by the rule of record.py: replaces(); or if none is there.
local function replaces(timestamp_us, received_ms, old_timestamp_us, old_received_ms)
  return not old_timestamp_us
    or timestamp_us >= old_timestamp_us
    or timestamp_us < (received_ms + 1) * 1000 and timestamp_us >= (old_received_ms + 1) * 1000
end

-- Returns an encoded latest whose device was seen at `now_ms`, too.
local function seen_at(value, now_ms)
  return string.sub(value, 1, -9) .. struct.pack('>I8', math.max(struct.unpack('>I8', value, #value - 7), now_ms))
end

-- True if the part from `at` to `stop` is the slot of this very record.
local function is_same_slot(value, at, stop, id, received_ms, timestamp_us, fix_flag, record)
  return string.sub(value, at, stop - 1)
    == struct.pack('>BBI8BI8BI8BBI4c0', SLOT, 207, id, 207, received_ms, 207, timestamp_us, fix_flag, 198, #record, record)
end

-- Returns an encoded latest, `value` or that of an unknown device, after a record was offered to it. `flags` are those of
-- candidates() in entry_codec.py; the device was seen at `seen_ms`.
local function offer(value, flags, id, received_ms, timestamp_us, record, seen_ms)
  value = value or UNKNOWN
  local other_at, http_us, http_ms = read_part(value, 2)
  local fix_at, other_us, other_ms = read_part(value, other_at)
  local fix, number, at, stop, old_us, old_ms = string.byte(value, fix_at), 1, other_at, fix_at, other_us, other_ms
  if flags % 2 == 1 then
    number, at, stop, old_us, old_ms = 0, 2, other_at, http_us, http_ms
  end
  local is_newest = flags % 4 >= 2 and replaces(timestamp_us, received_ms, old_us, old_ms)
  local is_newest_fix = flags % 8 >= 4
  if is_newest_fix and fix == number and flags % 4 >= 2 then
    is_newest_fix = is_newest
  elseif is_newest_fix then
    local fix_us, fix_ms = http_us, http_ms
    if fix == 1 then
      fix_us, fix_ms = other_us, other_ms
    elseif fix ~= 0 then
      fix_us, fix_ms = select(2, read_part(value, fix_at))
    end
    is_newest_fix = replaces(timestamp_us, received_ms, fix_us, fix_ms)
  end
  if not is_newest and not is_newest_fix then
    return seen_at(value, seen_ms)
  end

  local fix_flag, last_seen_ms = flags >= 8 and 195 or 194, math.max(struct.unpack('>I8', value, #value - 7), seen_ms)
  local head_end, rest = at - 1, nil
  if is_newest and is_newest_fix then
    rest = string.sub(value, stop, fix_at - 1) .. (number == 0 and '\0' or '\1')
  elseif is_newest and fix == number then
    rest = string.sub(value, stop, fix_at - 1) .. string.sub(value, at, stop - 1)
  elseif is_newest then
    rest = string.sub(value, stop, -10)
  elseif is_same_slot(value, at, stop, id, received_ms, timestamp_us, fix_flag, record) then
    return string.sub(value, 1, fix_at - 1) .. (number == 0 and '\0' or '\1') .. struct.pack('>BI8', 207, last_seen_ms)
  else
    head_end, rest = fix_at - 1, ''
  end
  return struct.pack('>c0BBI8BI8BI8BBI4c0c0BI8', string.sub(value, 1, head_end), SLOT, 207, id, 207, received_ms, 207,
    timestamp_us, fix_flag, 198, #record, record, rest, 207, last_seen_ms)
end

-- Returns a device's encoded latest after an entry's candidates (entry_codec.py) were offered to it. An entry without any,
-- whose records can't be read, shows that the device was seen.
local function offer_candidates(value, entry, first_id, received_ms, shards)
  if entry.candidates == '' then
    return seen_at(value or UNKNOWN, received_ms)
  end
  local at = 1
  while at <= #entry.candidates do
    local flags, index, offset, length, timestamp_us
    flags, index, offset, length, timestamp_us, at = struct.unpack('>BI2I4I4I8', entry.candidates, at)
    local record = string.sub(entry.records, offset + 1, offset + length)
    value = offer(value, flags, first_id + index * shards, received_ms, timestamp_us, record, received_ms)
  end
  return value
end

-- Returns the greatest timestamp of the newest records in an encoded latest, µs; -1 if there is none.
local function newest_us(value)
  local other_at, http_us = read_part(value, 2)
  local _, other_us = read_part(value, other_at)
  return math.max(http_us or -1, other_us or -1)
end
