#!lua name=whimbrel_LIBRARY

-- The hot store's server-side functions, one shard a call. The layout of keys is described in shard.py, that
-- of values in entry_codec.py; every key that a function touches is in KEYS. Numbers stay below 2^53, so that Lua's
-- doubles hold them exactly; commit numbers do not, and are compared as text. shard.py puts the library's name in.

local NIL = '\192'
local SLOT_HEADER = 34

-- The channel of shared_state.py: CHANGED. No device's id has a zero byte.
local CHANGED = 'whimbrel:changed'

-- A function that refuses to act on another store than its caller's. KEYS begin with the store's key, ARGV
-- with the id that the caller knows.
local function of_store(act)
  return function(keys, args)
    local found = redis.call('HGET', keys[1], 'id')
    if found ~= args[1] then
      return redis.error_reply('OTHERSTORE ' .. tostring(found))
    end
    return act(keys, args)
  end
end

local function milliseconds(entry_id)
  return tonumber(string.match(entry_id, '^%d+'))
end

-- bytes that wait to be saved ----------------------------------------------------------------------

-- The size of an entry as entry_codec.py counts it (size_bytes): the names of its fields and their values.
local function size_bytes(...)
  local bytes = 0
  for _, text in ipairs({ ... }) do
    bytes = bytes + #text
  end
  return bytes
end

-- Adds to the bytes of a shard's unsaved entries; what takes away more than there are leaves none.
local function add_unsaved_bytes(store_key, bytes)
  if bytes ~= 0 and redis.call('HINCRBY', store_key, 'unsaved_bytes', string.format('%.0f', bytes)) < 0 then
    redis.call('HSET', store_key, 'unsaved_bytes', '0')
  end
end

-- Takes records and their bytes off what is unsaved. Without a dirty device nothing is: an entry that could not be read
-- was counted as one record.
local function take_off_unsaved(store_key, unsaved_key, dirty_key, records, bytes)
  redis.call('DECRBY', unsaved_key, records)
  add_unsaved_bytes(store_key, -bytes)
  if redis.call('ZCARD', dirty_key) == 0 then
    redis.call('SET', unsaved_key, '0')
    redis.call('HSET', store_key, 'unsaved_bytes', '0')
  end
end

-- latest ------------------------------------------------------------------------------------------

-- Tells whoever listens whose latest has changed. That this may not be asked or told is no reason to store nothing.
local function announce(names)
  local listeners = #names > 0 and redis.pcall('PUBSUB', 'NUMSUB', CHANGED)[2] or 0
  if listeners > 0 then
    redis.pcall('PUBLISH', CHANGED, table.concat(names, '\0'))
  end
end

local function u64(number)
  return '\207' .. struct.pack('>I8', number)
end

local function slot_of(id, received_ms, timestamp_us, has_fix, record)
  return struct.pack('>BBI8BI8BI8BBI4', 149, 207, id, 207, received_ms, 207, timestamp_us, has_fix and 195 or 194, 198,
    #record) .. record
end

local function new_slot(id, received_ms, timestamp_us, has_fix, record)
  return {
    timestamp_us = timestamp_us,
    received_ms = received_ms,
    has_fix = has_fix,
    bytes = slot_of(id, received_ms, timestamp_us, has_fix, record),
  }
end

-- Returns the slot at `at` (nil, the number 0 or 1, or a table) and where the next one begins.
local function parse_slot(value, at)
  local first = string.byte(value, at)
  if first == 192 then
    return nil, at + 1
  end
  if first <= 1 then
    return first, at + 1
  end
  local received_ms, timestamp_us = struct.unpack('>I8xI8', value, at + 11)
  local length = struct.unpack('>I4', value, at + 30)
  local stop = at + SLOT_HEADER + length
  return {
    timestamp_us = timestamp_us,
    received_ms = received_ms,
    has_fix = string.byte(value, at + 28) == 195,
    bytes = string.sub(value, at, stop - 1),
  }, stop
end

local function parse_latest(value)
  if not value then
    return {}
  end
  local latest, at = {}, 2
  latest.http, at = parse_slot(value, at)
  latest.other, at = parse_slot(value, at)
  latest.fix, at = parse_slot(value, at)
  latest.seen_ms = struct.unpack('>I8', value, at + 1)
  return latest
end

local function slot_bytes(slot)
  if slot == nil then
    return NIL
  end
  return type(slot) == 'number' and string.char(slot) or slot.bytes
end

local function latest_bytes(latest)
  return '\148' .. slot_bytes(latest.http) .. slot_bytes(latest.other) .. slot_bytes(latest.fix)
    .. u64(latest.seen_ms)
end

-- The rule of record.py: replaces().
local function is_newer(timestamp_us, received_ms, old_timestamp_us, old_received_ms)
  return timestamp_us >= old_timestamp_us
    or timestamp_us < (received_ms + 1) * 1000 and timestamp_us >= (old_received_ms + 1) * 1000
end

local function replaces(new, old)
  return old == nil or is_newer(new.timestamp_us, new.received_ms, old.timestamp_us, old.received_ms)
end

local function offer(latest, new, is_http, is_newest, is_newest_fix)
  local name, number = 'other', 1
  if is_http then
    name, number = 'http', 0
  end
  local fix = latest.fix
  if type(fix) == 'number' then
    fix = fix == 0 and latest.http or latest.other
  end
  if is_newest and replaces(new, latest[name]) then
    if latest.fix == number then
      latest.fix = fix
    end
    latest[name] = new
  end
  if is_newest_fix and replaces(new, fix) then
    latest.fix = latest[name] and latest[name].bytes == new.bytes and number or new
  end
end

-- Offers an entry's candidates (entry_codec.py: candidates()) to its device's latest.
local function offer_candidates(latest, entry, first_id, received_ms, shards)
  local at = 1
  while at <= #entry.candidates do
    local bits, index, offset, length, timestamp_us
    bits, index, offset, length, timestamp_us, at = struct.unpack('>BI2I4I4I8', entry.candidates, at)
    local record = string.sub(entry.records, offset + 1, offset + length)
    local has_fix = bit.band(bits, 8) > 0
    local new = new_slot(first_id + index * shards, received_ms, timestamp_us, has_fix, record)
    offer(latest, new, bit.band(bits, 1) > 0, bit.band(bits, 2) > 0, bit.band(bits, 4) > 0)
  end
  latest.seen_ms = math.max(latest.seen_ms or 0, received_ms)
end

-- the box's clock, which may be set at any time ----------------------------------------------------

local HOUR_MS, DAY_MS = 3600000, 86400000

-- What the clock shows.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The clock, from what the store knows of it (shard.py): `now_ms`, what it shows; `newest_ms`, the greatest that it
-- showed as records came; and `steady_ms`, which runs on with it but takes no part in its jumps, so that senders and
-- keys grow old by that. More than an hour at once is a jump.
local function read_clock(newest_ms, behind_since_ms, jumped_ms, shown_ms)
  local now_ms = clock_ms()
  local last_ms = tonumber(shown_ms or newest_ms or now_ms)
  local jumped = tonumber(jumped_ms or 0)
  return {
    now_ms = now_ms,
    newest_ms = tonumber(newest_ms or 0),
    steady_ms = last_ms - jumped + math.max(0, math.min(now_ms - last_ms, HOUR_MS)),
    behind_since_ms = behind_since_ms and tonumber(behind_since_ms),
    jumped_ms = jumped,
  }
end

-- Notes what the clock showed as records came. One that ran on for a day behind an earlier one is right after all.
local function note_clock(store_key, clock)
  local now, since_ms = string.format('%.0f', clock.now_ms), clock.behind_since_ms or clock.steady_ms
  if clock.now_ms < clock.newest_ms and clock.steady_ms - since_ms < DAY_MS then
    redis.call('HSET', store_key, 'behind_since_ms', string.format('%.0f', since_ms), 'clock_ms', now)
  else
    clock.newest_ms = clock.now_ms
    redis.call('HSET', store_key, 'newest_ms', now)
    if clock.behind_since_ms then
      redis.call('HDEL', store_key, 'behind_since_ms', 'clock_ms')
    end
  end
  local jumped_ms = clock.now_ms - clock.steady_ms
  if jumped_ms ~= clock.jumped_ms then
    redis.call('HSET', store_key, 'jumped_ms', string.format('%.0f', jumped_ms))
  end
end

-- The usual case of `offered`: one candidate that is the newest in every sense, and a device without a latest, or with
-- one by the same transport alone that has a fix. Returns nil where it is another case. Lua hashes and keeps each text
-- that it makes, and this makes two: 1.9 µs of its time, where it took 2.8 when it put slots together.
local function offered_usually(value, entry, first_id, received_ms, shards)
  if #entry.candidates ~= 19 then
    return nil
  end
  local bits, index, offset, length, timestamp_us = struct.unpack('>BI2I4I4I8', entry.candidates)
  local is_http = bits == 15
  if not is_http and bits ~= 14 then
    return nil
  end
  local seen_ms = received_ms
  if value then
    local at = is_http and 2 or 3
    if string.byte(value, at) ~= 149 or (not is_http and string.byte(value, 2) ~= 192) then
      return nil
    end
    local old_received_ms, old_timestamp_us, old_length = struct.unpack('>I8xI8xxI4', value, at + 11)
    local rest = at + SLOT_HEADER + old_length
    local first, second = string.byte(value, rest, rest + 1)
    if is_http and (first ~= 192 or second ~= 0 or #value ~= rest + 10) then
      return nil
    elseif not is_http and (first ~= 1 or #value ~= rest + 9) then
      return nil
    end
    seen_ms = math.max(struct.unpack('>I8', value, #value - 7), received_ms)
    if not is_newer(timestamp_us, received_ms, old_timestamp_us, old_received_ms) then
      return string.sub(value, 1, -9) .. struct.pack('>I8', seen_ms)
    end
  end
  local record = string.sub(entry.records, offset + 1, offset + length)
  local id = first_id + index * shards
  if is_http then
    return struct.pack('>BBBI8BI8BI8BBI4c0BBBI8', 148, 149, 207, id, 207, received_ms, 207, timestamp_us, 195, 198,
      #record, record, 192, 0, 207, seen_ms)
  end
  return struct.pack('>BBBBI8BI8BI8BBI4c0BBI8', 148, 192, 149, 207, id, 207, received_ms, 207, timestamp_us, 195, 198,
    #record, record, 1, 207, seen_ms)
end

-- A device's encoded latest, `value` or none, after an entry was offered to it.
local function offered(value, entry, first_id, received_ms, shards)
  local usual = offered_usually(value, entry, first_id, received_ms, shards)
  if usual then
    return usual
  end
  local latest = parse_latest(value)
  offer_candidates(latest, entry, first_id, received_ms, shards)
  return latest_bytes(latest)
end

-- An encoded latest whose device was seen at `now_ms`.
local function seen_at(value, now_ms)
  return string.sub(value, 1, -9) .. struct.pack('>I8', math.max(struct.unpack('>I8', value, #value - 7), now_ms))
end

-- The greatest timestamp of the newest records in an encoded latest, µs.
local function newest_us(value)
  local found, at = -1, 2
  for _ = 1, 2 do
    if string.byte(value, at) == 149 then
      local timestamp_us, length = struct.unpack('>I8xxI4', value, at + 20)
      found, at = math.max(found, timestamp_us), at + SLOT_HEADER + length
    else
      at = at + 1
    end
  end
  return found
end

-- streams that were deleted -------------------------------------------------------------------------

-- The id of a new stream's first entry where the clock was set back: a stream of the same name may have been deleted,
-- and its ids must not come again while an intent names them.
local function above_floor(stream, floor_ms)
  return redis.call('EXISTS', stream) == 0 and string.format('%.0f-0', floor_ms + 1) or '*'
end

local STORED, SEEN, OTHER_BODY, KEYS_FULL, SENDERS_FULL, APART, SHARE_FULL = 0, 1, 2, 3, 4, 5, 6

-- records that are sent again -----------------------------------------------------------------------

-- An entry keeps the marks (entry_codec.py) of its records that are stored once, however often they are sent, in a field of
-- its own; when it is saved and goes, `recent` keeps those of its device's last RECENT records, or of its last entry.
-- So what is stored is known as long as it rests here, and each append costs no more than its own marks: which of them
-- can be a repeat is told by latest, which it reads anyway.
local MARK = 8
local NO_MARK = '\0\0\0\0\0\0\0\0'
local RECENT = 64
local MARKS_PAGE = 16
local AHEAD_US = 60000000
local UNREAD = '?'

-- Where the first mark stands among marks that equals `mark`; nil if none does.
local function find_mark(marks, mark)
  local at = string.find(marks, mark, 1, true)
  while at and at % MARK ~= 1 do
    at = string.find(marks, mark, at + 1, true)
  end
  return at
end

-- The marks of the last entries of a stream from `from` on backwards, the newest last: of RECENT records or a few more,
-- looking through RECENT entries or a few more.
local function marks_in(stream, from)
  local found, size, looked = {}, 0, 0
  while size < RECENT * MARK and looked < RECENT do
    local page = redis.call('XREVRANGE', stream, from, '-', 'COUNT', MARKS_PAGE)
    for _, entry in ipairs(page) do
      local fields = entry[2]
      if fields[5] == 'm' and size < RECENT * MARK then
        found[#found + 1] = fields[6]
        size = size + #fields[6]
      end
    end
    if #page < MARKS_PAGE then
      break
    end
    looked, from = looked + #page, '(' .. page[#page][1]
  end
  for at = 1, math.floor(#found / 2) do
    found[at], found[#found - at + 1] = found[#found - at + 1], found[at]
  end
  return table.concat(found)
end

-- The second of the oldest record of some marks, and whether two of them are alike.
local function look_at(marks)
  local seen, oldest_s, is_twice = {}, math.huge, false
  for at = 1, #marks, MARK do
    local mark = string.sub(marks, at, at + MARK - 1)
    if mark ~= NO_MARK then
      is_twice, seen[mark] = is_twice or seen[mark], true
      oldest_s = math.min(oldest_s, struct.unpack('>I4', mark, 5))
    end
  end
  return oldest_s, is_twice
end

-- Whether a record of an entry may have been stored before: only if its device has a record that is as new, or its
-- time lies ahead, where latest may go back. `value` is its device's latest.
local function may_repeat(entry, value, now_ms)
  local oldest_us, newest, is_twice
  if entry.count == 1 then
    oldest_us = struct.unpack('>I8', entry.candidates, 12)
    newest = oldest_us
  else
    oldest_us, is_twice = look_at(entry.marks)
    oldest_us, newest = oldest_us * 1000000, struct.unpack('>I8', entry.candidates, 12)
  end
  return is_twice or (value and (oldest_us <= newest_us(value) or newest > now_ms * 1000 + AHEAD_US))
end

-- The places in an entry, from 0, of records that repeat one of `before` or an earlier one of their entry.
local function find_repeats(before, marks)
  if #marks == MARK then
    return find_mark(before, marks) and { 0 } or {}
  end
  local seen, repeats = {}, {}
  for at = 1, #before, MARK do
    seen[string.sub(before, at, at + MARK - 1)] = true
  end
  for at = 1, #marks, MARK do
    local mark = string.sub(marks, at, at + MARK - 1)
    if mark ~= NO_MARK then
      repeats[#repeats + 1] = seen[mark] and (at - 1) / MARK
      seen[mark] = true
    end
  end
  return repeats
end

-- Finds records that repeat one of their device's last, also of this call. An entry of which all do is `is_repeat`.
-- Returns the records of entries that have others, too, as batch, entry and record, from 0. A device without a latest
-- was never stored, or deleted.
local function find_resent(batches, recent_key, known, now_ms)
  local some, earlier = {}, {}
  for batch_number, batch in ipairs(batches) do
    for entry_number, entry in ipairs(batch.entries) do
      local device = entry.device
      if entry.marks ~= '' and batch.status == STORED then
        local before, value = earlier[device], known[device]
        if before or may_repeat(entry, value, now_ms) then
          local rest = before or ''
          if value then
            rest = (redis.call('HGET', recent_key, device) or '') .. marks_in(entry.stream, '+') .. rest
          end
          local repeats = find_repeats(rest, entry.marks)
          entry.is_repeat = #repeats == entry.count
          for _, at in ipairs(entry.is_repeat and {} or repeats) do
            some[#some + 1] = batch_number - 1
            some[#some + 1] = entry_number - 1
            some[#some + 1] = at
          end
        end
        earlier[device] = (before or '') .. entry.marks
      end
    end
  end
  return some
end

-- append ------------------------------------------------------------------------------------------

local FIXED_KEYS = 10
local FIXED_ARGS = 8
local PIECE = 2000
local FORGET_AT_LEAST = 10
local ALLOTTED_S = 86400

-- Calls a command whose arguments may be more than Lua's unpack takes, in pieces of an even number.
local function in_pieces(arguments, call)
  for from = 1, #arguments, PIECE do
    call(unpack(arguments, from, math.min(from + PIECE - 1, #arguments)))
  end
end

local function read_batches(keys, args)
  local batches, arg, key = {}, FIXED_ARGS + 1, FIXED_KEYS + 1
  for _ = 1, tonumber(args[FIXED_ARGS]) do
    local batch = { name = args[arg], hash = args[arg + 1], number = tonumber(args[arg + 2]), entries = {} }
    local share, entries = tonumber(args[arg + 3]), tonumber(args[arg + 4])
    arg = arg + 5
    if batch.name ~= '' and batch.number == 0 then
      batch.key = keys[key]
      key = key + 1
    end
    if share > 0 then
      batch.share, batch.owner_key = share, keys[key]
      key = key + 1
    end
    for number = 1, entries do
      batch.entries[number] = {
        stream = keys[key],
        device = args[arg],
        count = tonumber(args[arg + 1]),
        records = args[arg + 2],
        candidates = args[arg + 3],
        marks = args[arg + 4],
      }
      arg = arg + 5
      key = key + 1
    end
    batches[#batches + 1] = batch
  end
  return batches, arg
end

-- True if the owner of a new name has its share already; else the name is counted. `counts` is what this call knows.
local function is_share_full(batch, counts, before_ms)
  if not batch.share then
    return false
  end
  local key = batch.owner_key
  if not counts[key] then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', before_ms)
    counts[key] = redis.call('ZCARD', key)
  end
  if counts[key] >= batch.share then
    return true
  end
  counts[key] = counts[key] + 1
  return false
end

-- Decides about a batch with an Idempotency-Key. `named` is what this call knows of them so far.
local function decide_keyed(batch, named, until_key, steady_ms, max_keys)
  if named.room == nil then
    redis.call('ZREMRANGEBYSCORE', until_key, '-inf', steady_ms)
    named.room = max_keys - redis.call('ZCARD', until_key)
  end
  local known = named.hashes[batch.name] or redis.call('GET', batch.key)
  if known then
    return known == batch.hash and SEEN or OTHER_BODY
  elseif named.room <= 0 then
    return KEYS_FULL
  elseif is_share_full(batch, named.of, steady_ms) then
    return SHARE_FULL
  end
  named.hashes[batch.name] = batch.hash
  named.room = named.room - 1
  return STORED
end

-- Forgets senders not seen since `before_ms`, the longest silent first: a few more than this call may add, so
-- that the rest goes bit by bit.
local function forget_senders(senders_key, seen_key, before_ms, adds)
  local old =
    redis.call('ZRANGE', seen_key, '-inf', before_ms, 'BYSCORE', 'LIMIT', 0, adds + FORGET_AT_LEAST)
  for _, sender in ipairs(old) do
    redis.call('HDEL', senders_key, sender)
    redis.call('ZREM', seen_key, sender)
  end
end

-- The last batch number of a sender, 0 if it is unknown or was silent for too long.
local function last_number(sender, senders_key, seen_key, before_ms)
  local seen_ms = redis.call('ZSCORE', seen_key, sender)
  if not seen_ms or tonumber(seen_ms) <= before_ms then
    return 0
  end
  return tonumber(redis.call('HGET', senders_key, sender) or '0')
end

-- Decides about a sender's batch. `senders` is what this call knows of them so far.
local function decide_numbered(batch, senders, senders_key, seen_key, before_ms, max_senders)
  local last = senders.last[batch.name] or last_number(batch.name, senders_key, seen_key, before_ms)
  if batch.number <= last then
    return SEEN
  end
  if last == 0 and not redis.call('ZSCORE', seen_key, batch.name) then
    senders.room = senders.room or max_senders - redis.call('ZCARD', seen_key)
    if senders.room <= 0 then
      return SENDERS_FULL
    elseif is_share_full(batch, senders.of, before_ms) then
      return SHARE_FULL
    end
    batch.is_new = true
    senders.room = senders.room - 1
  end
  senders.last[batch.name] = batch.number
  return STORED
end

local function count_numbered(batches)
  local count = 0
  for _, batch in ipairs(batches) do
    count = count + (batch.number > 0 and 1 or 0)
  end
  return count
end

-- Decides what becomes of each named batch; an earlier one of the same call counts.
local function decide(batches, keys, args, steady_ms)
  local named, senders, numbered = { hashes = {}, of = {} }, { last = {}, of = {} }, count_numbered(batches)
  local before_ms = steady_ms - tonumber(args[6])
  if numbered > 0 then
    forget_senders(keys[8], keys[9], before_ms, numbered)
  end
  for _, batch in ipairs(batches) do
    batch.status = STORED
    if batch.number > 0 then
      batch.status = decide_numbered(batch, senders, keys[8], keys[9], before_ms, tonumber(args[5]))
    elseif batch.name ~= '' then
      batch.status = decide_keyed(batch, named, keys[7], steady_ms, tonumber(args[3]))
    end
  end
end

-- Has none stored if one may not be.
local function all_or_none(batches)
  local is_whole = true
  for _, batch in ipairs(batches) do
    is_whole = is_whole and batch.status == STORED
  end
  for _, batch in ipairs(batches) do
    batch.status = not is_whole and batch.status == STORED and APART or batch.status
  end
end

-- Notes that a batch was stored, so that it is known when it comes again.
local function remember(batch, keys, args, steady_ms)
  if batch.number > 0 then
    redis.call('HSET', keys[8], batch.name, string.format('%.0f', batch.number))
    redis.call('ZADD', keys[9], string.format('%.0f', steady_ms), batch.name)
    if batch.share then
      redis.call('ZADD', batch.owner_key, batch.is_new and 'NX' or 'XX', string.format('%.0f', steady_ms), batch.name)
      redis.call('PEXPIRE', batch.owner_key, args[6])
    end
  elseif batch.name ~= '' then
    redis.call('SET', batch.key, batch.hash, 'PX', args[4])
    redis.call('ZADD', keys[7], steady_ms + args[4], batch.name)
    if batch.share then
      redis.call('ZADD', batch.owner_key, steady_ms + args[4], batch.name)
      redis.call('PEXPIRE', batch.owner_key, args[4])
    end
  end
end

local function load_latest(batches, latest_key)
  local names, known = {}, {}
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        if known[entry.device] == nil then
          known[entry.device] = false
          names[#names + 1] = entry.device
        end
      end
    end
  end
  local new, at = {}, 0
  in_pieces(names, function(...)
    for _, value in ipairs(redis.call('HMGET', latest_key, ...)) do
      at = at + 1
      known[names[at]] = value
      if not value then
        new[#new + 1] = names[at]
      end
    end
  end)
  return known, names, new
end

-- How many records there are to store, and how many that are repeats.
local function total_records(batches)
  local total, resent = 0, 0
  for _, batch in ipairs(batches) do
    if batch.status == STORED then
      for _, entry in ipairs(batch.entries) do
        if entry.is_repeat then
          resent = resent + entry.count
        else
          total = total + entry.count
        end
      end
    end
  end
  return total, resent
end

-- Appends an entry to its stream. Returns its id, and how many bytes it has.
local function add_entry(entry, wanted_id, first_id)
  local text, marks = string.format('%.0f', first_id), entry.marks
  if marks == '' then
    return redis.call('XADD', entry.stream, wanted_id, 'i', text, 'r', entry.records), 2 + #text + #entry.records
  end
  local size = 3 + #text + #entry.records + #marks
  return redis.call('XADD', entry.stream, wanted_id, 'i', text, 'r', entry.records, 'm', marks), size
end

-- The first prefix of `args` from `at` on, pairs of a prefix and how many devices it may have, for which new devices
-- are too many; nil if there is none.
local function full_prefix(new, devices_key, args, at)
  for position = at, #args, 2 do
    local prefix, adds = args[position], 0
    for _, name in ipairs(new) do
      adds = adds + (string.sub(name, 1, #prefix) == prefix and 1 or 0)
    end
    local known = adds > 0 and redis.call('ZLEXCOUNT', devices_key, '[' .. prefix, '[' .. prefix .. '\255') or 0
    if adds > 0 and known + adds > tonumber(args[position + 1]) then
      return prefix
    end
  end
end

-- KEYS: store latest devices dirty unsaved next_id sent_until senders senders_seen recent, then for each batch its
--       sent key if it has an Idempotency-Key, the set of its owner's names if they have a share, and the stream of
--       each entry.
-- ARGV: store id, most devices, most keys, ms that a key is remembered, most senders, ms that a sender is
--       remembered, '1' if all batches are to be stored or none, number of batches, then for each batch: its
--       Idempotency-Key or its sender's id or '', hash of its body, its sender's number for it or 0, how many names
--       its owner may have or 0, number of entries, and for each entry: device, number of records, the msgpack array of
--       its records, its candidates for latest, its marks or ''. Last, pairs of a prefix and how many devices may
--       have it.
-- Returns {status of each batch, the clock's newest_ms, records unsaved now, how many were repeats}; and as fifth those
-- that repeat others while their entry has some that do not, as `find_resent` has them: then nothing was stored.
-- Stores nothing and answers DEVICESFULL if it would bring more devices than may be, SHAREFULL if more of a prefix. With nothing to store it writes
-- nothing, and is refused all the same where a write would be.
local function append(keys, args)
  local store =
    redis.call('HMGET', keys[1], 'shard', 'shards', 'newest_ms', 'behind_since_ms', 'jumped_ms', 'clock_ms', 'floor_ms')
  local shard, shards, floor_ms = tonumber(store[1]), tonumber(store[2]), tonumber(store[7] or '-1')
  local clock = read_clock(store[3], store[4], store[5], store[6])
  local batches, rest = read_batches(keys, args)
  decide(batches, keys, args, clock.steady_ms)
  if args[7] == '1' then
    all_or_none(batches)
  end
  local known, names, new = load_latest(batches, keys[2])
  if #new > 0 and redis.call('ZCARD', keys[3]) + #new > tonumber(args[2]) then
    return redis.error_reply('DEVICESFULL')
  end
  local prefix = #new > 0 and full_prefix(new, keys[3], args, rest)
  if prefix then
    return redis.error_reply('SHAREFULL ' .. prefix)
  end

  local some = find_resent(batches, keys[10], known, clock.now_ms)
  local total, resent = total_records(batches)
  local statuses, dirty, last_ms, bytes = {}, {}, 0, 0
  if #some > 0 then
    for position, batch in ipairs(batches) do
      statuses[position] = batch.status
    end
    return { statuses, clock.newest_ms, tonumber(redis.call('GET', keys[5]) or '0'), 0, some }
  end
  local number = total > 0 and redis.call('INCRBY', keys[6], total) - total or 0
  for position, batch in ipairs(batches) do
    statuses[position] = batch.status
    for _, entry in ipairs(batch.status == STORED and batch.entries or {}) do
      if entry.is_repeat then
        known[entry.device] = seen_at(known[entry.device], clock.now_ms)
      else
        local first_id = number * shards + shard
        local wanted_id = clock.now_ms <= floor_ms and above_floor(entry.stream, floor_ms) or '*'
        local entry_id, size = add_entry(entry, wanted_id, first_id)
        bytes = bytes + size
        local received_ms = milliseconds(entry_id)
        known[entry.device] = offered(known[entry.device], entry, first_id, received_ms, shards)
        dirty[#dirty + 1] = received_ms == last_ms and dirty[#dirty - 1] or string.format('%.0f', received_ms)
        last_ms = received_ms
        dirty[#dirty + 1] = entry.device
        number = number + entry.count
      end
    end
    if batch.status == STORED then
      remember(batch, keys, args, clock.steady_ms)
    end
  end

  if total > 0 then
    note_clock(keys[1], clock)
    add_unsaved_bytes(keys[1], bytes)
  end
  in_pieces(dirty, function(...) redis.call('ZADD', keys[4], 'NX', ...) end)
  local changed, added = {}, {}
  for _, name in ipairs(names) do
    changed[#changed + 1] = name
    changed[#changed + 1] = known[name]
  end
  in_pieces(changed, function(...) redis.call('HSET', keys[2], ...) end)
  announce(names)
  for _, name in ipairs(new) do
    added[#added + 1] = '0'
    added[#added + 1] = name
  end
  in_pieces(added, function(...) redis.call('ZADD', keys[3], ...) end)
  if total > 0 then
    return { statuses, clock.newest_ms, redis.call('INCRBY', keys[5], total), resent }
  elseif not redis.acl_check_cmd('INCRBY', keys[5], '0') then
    return redis.error_reply('NOPERM its user may not write')
  end
  return { statuses, clock.newest_ms, tonumber(redis.call('GET', keys[5]) or '0'), resent }
end

-- setting up and saving ---------------------------------------------------------------------------

-- KEYS: store committed next_id. ARGV: new store id, layout, shards, shard, committed, next_id.
-- Returns the store's {id, layout, shards}: those given, unless it was set up before. Beside an archive that
-- has records, latest is to be rebuilt.
local function setup(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then
    redis.call('HSET', keys[1], 'id', args[1], 'layout', args[2], 'shards', args[3], 'shard', args[4],
      'rebuild', args[5] == '0' and '0' or '1')
    redis.call('SET', keys[2], args[5])
    redis.call('SET', keys[3], args[6])
  end
  return redis.call('HMGET', keys[1], 'id', 'layout', 'shards')
end

-- KEYS: store. ARGV: store id, the layout that its caller found, the one that it knows, new store id, which stops
-- programs of the release before that still run. Returns 1 if it was changed now.
local function upgrade(keys, args)
  if redis.call('HGET', keys[1], 'layout') ~= args[2] then
    return 0
  end
  redis.call('HSET', keys[1], 'layout', args[3], 'id', args[4])
  return 1
end

-- Guard 1. KEYS: store intent committed finishing. ARGV: store id, committed as the caller knows it,
-- the intent. Returns 1 if it was written, 0 if there is one already or `committed` moved.
local function intend(keys, args)
  if redis.call('EXISTS', keys[2]) == 1 or redis.call('GET', keys[3]) ~= args[2] then
    return 0
  end
  redis.call('SET', keys[2], args[3])
  redis.call('SET', keys[4], '0')
  return 1
end

-- Allots ids for records of an import, which never rest here, and notes that under the caller's token. KEYS: store
-- next_id allotted. ARGV: store id, how many, a token that nobody else has.
-- Returns the first id, as text; the others follow in steps of `shards`.
local function allot(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local time = redis.call('TIME')
  redis.call('ZREMRANGEBYSCORE', keys[3], '-inf', time[1] - ALLOTTED_S)
  redis.call('ZADD', keys[3], time[1], args[3])
  local number = redis.call('INCRBY', keys[2], args[2]) - args[2]
  return string.format('%.0f', number * shape[2] + shape[1])
end

-- Guard 1 of an import, and that the ids which it was allotted are still allotted: a Redis that was restored since may
-- give them to others. KEYS: store intent committed finishing allotted. ARGV: store id, committed as the caller knows
-- it, the intent, the token. Returns as `intend`, or -1 if the token is not known.
local function intend_allotted(keys, args)
  if not redis.call('ZSCORE', keys[5], args[4]) then
    return -1
  end
  local written = intend(keys, args)
  if written == 1 then
    redis.call('ZREM', keys[5], args[4])
  end
  return written
end

-- Guard 4: true if the stored intent is the caller's. No two intents ever share a commit number, and an
-- intent begins with it, so its first bytes tell.
local function is_intent(intent_key, head)
  return redis.call('GETRANGE', intent_key, 0, #head - 1) == head and #head > 0
end

-- Takes the entries before `after_id` from a stream. Returns whether there were any, and the ms of the oldest that is
-- left, as text, or nil.
local function trim(stream, after_id)
  if redis.call('XTRIM', stream, 'MINID', after_id) == 0 then
    return false
  end
  if redis.call('XLEN', stream) == 0 then
    return true
  end
  local rest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  return true, string.format('%.0f', milliseconds(rest[1][1]))
end

-- What `recent` is to keep of a device whose entries before `after_id` go: its last marks. `marks` are those of the
-- entries, or UNREAD.
local function marks_kept(marks, recent_key, device, stream, after_id)
  if marks == UNREAD then
    marks = marks_in(stream, '(' .. after_id)
  end
  local old = #marks < RECENT * MARK and redis.call('HGET', recent_key, device) or ''
  return string.sub(old .. marks, -math.max(#marks, RECENT * MARK))
end

-- KEYS: store intent committed finishing unsaved dirty recent, then the stream of each device of this chunk.
-- ARGV: store id, head of the intent, number of this chunk, '1' if it is the last, commit number, then for each device:
--       device, the entry id behind its range, how many records that holds, how many bytes, and its last marks: '' if
--       it has none, UNREAD if the caller does not know them.
-- Returns the number of the next chunk, or -1 if the intent or the chunk is not the caller's.
local function finish(keys, args)
  if not is_intent(keys[2], args[2]) or redis.call('GET', keys[4]) ~= args[3] then
    return -1
  end
  local gone, gone_bytes, empty, waiting, recent = 0, 0, {}, {}, {}
  for number = 1, #keys - 7 do
    local at, stream = 6 + (number - 1) * 5, keys[7 + number]
    local marks = args[at + 4] ~= '' and marks_kept(args[at + 4], keys[7], args[at], stream, args[at + 1])
    local is_trimmed, oldest_ms = trim(stream, args[at + 1])
    if is_trimmed and marks then
      recent[#recent + 1] = args[at]
      recent[#recent + 1] = marks
    end
    if is_trimmed then
      gone = gone + tonumber(args[at + 2])
      gone_bytes = gone_bytes + tonumber(args[at + 3])
      if oldest_ms then
        waiting[#waiting + 1] = oldest_ms
        waiting[#waiting + 1] = args[at]
      else
        empty[#empty + 1] = args[at]
      end
    end
  end
  in_pieces(empty, function(...) redis.call('ZREM', keys[6], ...) end)
  in_pieces(waiting, function(...) redis.call('ZADD', keys[6], ...) end)
  in_pieces(recent, function(...) redis.call('HSET', keys[7], ...) end)
  take_off_unsaved(keys[1], keys[5], keys[6], gone, gone_bytes)
  if args[4] == '1' then
    redis.call('SET', keys[3], args[5])
    redis.call('DEL', keys[2], keys[4])
    redis.call('HDEL', keys[1], 'trouble')
    return 0
  end
  return redis.call('INCR', keys[4])
end

-- KEYS: store. ARGV: store id, why a save failed.
local function note_trouble(keys, args)
  redis.call('HSET', keys[1], 'trouble', args[2])
  return 1
end

-- What stands in `deleting` of a device (deletions.py), or nil.
local function read_mark(text)
  if not text then
    return nil
  end
  local name, before_id, aside, generation = string.match(text, '^(%S+) (%d+) (%S+) (%d+)$')
  return { name = name, before_id = tonumber(before_id), aside = aside, generation = generation }
end

local function is_at_most(one, other)
  local one_ms, one_sequence = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_sequence = string.match(other, '^(%d+)-(%d+)$')
  if one_ms ~= other_ms then
    return tonumber(one_ms) < tonumber(other_ms)
  end
  return tonumber(one_sequence) <= tonumber(other_sequence)
end

-- Whether an entry of the quarantine came, or its records were accepted, before its device was deleted.
local function is_before(entry, mark)
  local first_id = tonumber(entry[2][6])
  return is_at_most(entry[1], mark.aside) or (first_id > 0 and first_id < mark.before_id)
end

local function is_deleted(entry, deleting_key)
  local mark = read_mark(redis.call('HGET', deleting_key, entry[2][2]))
  return mark and is_before(entry, mark)
end

-- Takes the oldest out of the quarantine, by XTRIM: XDEL could take any, but mixed they corrupt a stream. Returns
-- true if it had been replayed.
local function drop_oldest(stream, state, replayed)
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  redis.call('HINCRBY', state, 'bytes', -#oldest[2][10])
  redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - 1)
  return redis.call('SREM', replayed, oldest[1]) == 1
end

-- Keeps five values each of what can't be used, from args[first] on: device, entry id, number of the first record,
-- reason, bytes. Then drops the oldest until all are of at most so many bytes. Returns how many it dropped.
local function keep(stream, state, replayed, args, first, max_bytes)
  local bytes = 0
  for at = first, #args, 5 do
    redis.call('XADD', stream, '*', 'device', args[at], 'entry', args[at + 1], 'i', args[at + 2], 'reason',
      args[at + 3], 'r', args[at + 4])
    bytes = redis.call('HINCRBY', state, 'bytes', #args[at + 4])
    redis.call('HINCRBY', state, 'kept', 1)
  end
  local dropped = 0
  while bytes > max_bytes and redis.call('XLEN', stream) > 1 do
    dropped = dropped + (drop_oldest(stream, state, replayed) and 0 or 1)
    bytes = tonumber(redis.call('HGET', state, 'bytes'))
  end
  redis.call('HINCRBY', state, 'dropped', dropped)
  return dropped
end

-- KEYS: store intent quarantine quarantine_state replayed. ARGV: store id, head of the intent, commit number, most
-- bytes, then for each what `keep` wants.
-- Keeps what an intent can't save, once an intent. Returns how many old ones were dropped, or -1.
local function quarantine(keys, args)
  if not is_intent(keys[2], args[2]) then
    return -1
  end
  if redis.call('HGET', keys[4], 'commit') == args[3] then
    return 0
  end
  redis.call('HSET', keys[4], 'commit', args[3])
  return keep(keys[3], keys[4], keys[5], args, 5, tonumber(args[4]))
end

-- KEYS: store quarantine quarantine_state replayed. ARGV: store id, most bytes, then for each what `keep` wants.
-- Keeps what a collector could not make a record of. Returns how many old ones were dropped.
local function set_aside(keys, args)
  return keep(keys[2], keys[3], keys[4], args, 3, tonumber(args[2]))
end

-- Appends what was in quarantine with new ids, and takes it out, in one. KEYS: store latest devices dirty unsaved
-- next_id quarantine quarantine_state replayed stream deleting. ARGV: store id, id in the quarantine, device, ms of
-- arrival, number of records, the msgpack array of its records, its candidates.
-- Returns how many records were appended; 0 if it is not in the quarantine any more, or about to be deleted.
local function replay(keys, args)
  local found = redis.call('XRANGE', keys[7], args[2], args[2])[1]
  if not found or redis.call('SISMEMBER', keys[9], args[2]) == 1 or is_deleted(found, keys[11]) then
    return 0
  end
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards', 'floor_ms')
  local count, arrival_ms = tonumber(args[5]), tonumber(args[4])
  local first_id = (redis.call('INCRBY', keys[6], count) - count) * shape[2] + shape[1]
  local floor_ms = tonumber(shape[3] or '-1')
  local wanted_id = clock_ms() <= floor_ms and above_floor(keys[10], floor_ms) or '*'
  local fields = { 'i', string.format('%.0f', first_id), 'r', args[6], 'a', args[4] }
  local entry_id = redis.call('XADD', keys[10], wanted_id, unpack(fields))
  local latest = parse_latest(redis.call('HGET', keys[2], args[3]))
  offer_candidates(latest, { records = args[6], candidates = args[7] }, first_id, arrival_ms, tonumber(shape[2]))
  redis.call('HSET', keys[2], args[3], latest_bytes(latest))
  announce({ args[3] })
  redis.call('ZADD', keys[3], 0, args[3])
  redis.call('ZADD', keys[4], 'NX', string.format('%.0f', milliseconds(entry_id)), args[3])
  redis.call('INCRBY', keys[5], count)
  add_unsaved_bytes(keys[1], size_bytes(unpack(fields)))
  redis.call('SADD', keys[9], args[2])
  redis.call('HINCRBY', keys[8], 'replayed', 1)
  local oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  while oldest and redis.call('SISMEMBER', keys[9], oldest[1]) == 1 do
    drop_oldest(keys[7], keys[8], keys[9])
    oldest = redis.call('XRANGE', keys[7], '-', '+', 'COUNT', 1)[1]
  end
  return count
end

-- recovering --------------------------------------------------------------------------------------

-- Closes the store to everyone but the caller, who alone knows the new id. KEYS: store next_id intent
-- finishing. ARGV: new store id, least next_id.
local function take_over(keys, args)
  redis.call('HSET', keys[1], 'id', args[1], 'rebuild', '1')
  redis.call('HDEL', keys[1], 'trouble')
  if tonumber(redis.call('GET', keys[2]) or '0') < tonumber(args[2]) then
    redis.call('SET', keys[2], args[2])
  end
  redis.call('DEL', keys[3], keys[4])
  return 1
end

-- Replaces all entries of one stream, whose records get new ids, in latest too. KEYS: store stream dirty unsaved
-- next_id latest. ARGV: store id, device, id of the last entry to replace, records that go away and their bytes, then
-- for each new entry: ms of arrival, number of records, the msgpack array of its records, its candidates.
local function replace(keys, args)
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards')
  local kept, kept_bytes, latest = 0, 0, parse_latest(redis.call('HGET', keys[6], args[2]))
  for at = 6, #args, 4 do
    local arrival_ms, count = tonumber(args[at]), tonumber(args[at + 1])
    local first_id = (redis.call('INCRBY', keys[5], count) - count) * shape[2] + shape[1]
    local fields = { 'i', string.format('%.0f', first_id), 'r', args[at + 2], 'a', args[at] }
    redis.call('XADD', keys[2], '*', unpack(fields))
    local entry = { records = args[at + 2], candidates = args[at + 3] }
    offer_candidates(latest, entry, first_id, arrival_ms, tonumber(shape[2]))
    kept = kept + count
    kept_bytes = kept_bytes + size_bytes(unpack(fields))
  end
  local ms, sequence = string.match(args[3], '^(%d+)-(%d+)$')
  local is_trimmed, oldest_ms = trim(keys[2], ms .. '-' .. string.format('%.0f', sequence + 1))
  if oldest_ms then
    redis.call('ZADD', keys[3], oldest_ms, args[2])
  elseif is_trimmed then
    redis.call('ZREM', keys[3], args[2])
  end
  redis.call('INCRBY', keys[4], kept - args[4])
  add_unsaved_bytes(keys[1], kept_bytes - args[5])
  if kept > 0 then
    redis.call('HSET', keys[6], args[2], latest_bytes(latest))
    announce({ args[2] })
  end
  return kept
end

-- Opens the store again. KEYS: store committed. ARGV: store id, committed.
local function reopen(keys, args)
  redis.call('SET', keys[2], args[2])
  return 1
end

-- rebuilding latest -------------------------------------------------------------------------------

local function offer_one(keys, args, at, device, bits, changed)
  local before = redis.call('HGET', keys[2], device)
  local latest = parse_latest(before)
  local received_ms = tonumber(args[at + 2])
  local new = new_slot(tonumber(args[at + 1]), received_ms, tonumber(args[at + 3]), bit.band(bits, 8) > 0, args[at + 5])
  offer(latest, new, bit.band(bits, 1) > 0, bit.band(bits, 2) > 0, bit.band(bits, 4) > 0)
  latest.seen_ms = math.max(latest.seen_ms or 0, tonumber(args[at + 6]))
  local after = latest_bytes(latest)
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
    local device, bits = args[at], tonumber(args[at + 4])
    local mark = is_any_deleted and read_mark(redis.call('HGET', keys[4], device))
    if not mark or tonumber(args[at + 1]) >= mark.before_id then
      offer_one(keys, args, at, device, bits, changed)
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

-- deleting a device --------------------------------------------------------------------------------

local COUNTED = 200

-- How many records the msgpack array of an entry holds; of what is none, one: as `finish` counts it.
local function count_in(records)
  local first = string.byte(records, 1) or 0
  if first >= 144 and first <= 159 then
    return first - 144
  end
  return first == 220 and #records >= 3 and struct.unpack('>I2', records, 2) or 1
end

-- How many records a stream holds, and how many bytes.
local function count_waiting(stream)
  local records, bytes, from = 0, 0, '-'
  while true do
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', COUNTED)
    for _, entry in ipairs(page) do
      local fields, data = entry[2], ''
      for at = 1, #fields, 2 do
        data = fields[at] == 'r' and fields[at + 1] or data
        bytes = bytes + #fields[at] + #fields[at + 1]
      end
      records = records + count_in(data)
    end
    if #page < COUNTED then
      return records, bytes
    end
    from = '(' .. page[#page][1]
  end
end

local function last_id(stream)
  local found = redis.call('XINFO', 'STREAM', stream)
  for at = 1, #found, 2 do
    if found[at] == 'last-generated-id' then
      return found[at + 1]
    end
  end
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
  local latest = {}
  for at = 5, #args, 6 do
    local received_ms, bits = tonumber(args[at + 1]), tonumber(args[at + 3])
    local new = new_slot(tonumber(args[at]), received_ms, tonumber(args[at + 2]), bit.band(bits, 8) > 0, args[at + 4])
    offer(latest, new, bit.band(bits, 1) > 0, bit.band(bits, 2) > 0, bit.band(bits, 4) > 0)
    latest.seen_ms = math.max(latest.seen_ms or 0, tonumber(args[at + 5]))
  end
  if latest.seen_ms then
    redis.call('HSET', keys[2], args[2], latest_bytes(latest))
  else
    redis.call('HDEL', keys[2], args[2])
    redis.call('ZREM', keys[3], args[2])
  end
  announce({ args[2] })
  return 1
end

-- Deletes a device's stream. Returns how many records that held, and how many bytes.
local function drop_stream(store_key, stream)
  if redis.call('EXISTS', stream) == 0 then
    return 0, 0
  end
  local records, bytes = count_waiting(stream)
  local last_ms = milliseconds(last_id(stream))
  if last_ms > tonumber(redis.call('HGET', store_key, 'floor_ms') or '-1') then
    redis.call('HSET', store_key, 'floor_ms', string.format('%.0f', last_ms))
  end
  redis.call('UNLINK', stream)
  return records, bytes
end

-- KEYS: store latest devices dirty unsaved next_id allotted quarantine deleting stream deletion recent. ARGV: store id,
-- device, name of the deletion: that of the one under way, if there is.
-- Returns 1; 0 if there is no such device; -1 if another deletion of it is under way.
-- From here on the device is as if it had never been, but for what is saved of it, and being saved; `deleting` says
-- what of that goes: what has an id below the next one. Ids that were allotted to imports are taken back, so that
-- nothing can come any more that has a lower one, except by an intent that stands.
local function forget(keys, args)
  local device, name = args[2], args[3]
  local mark = read_mark(redis.call('HGET', keys[9], device))
  if mark and mark.name ~= name then
    return -1
  end
  local shape = redis.call('HMGET', keys[1], 'shard', 'shards', 'rebuild')
  local is_known = mark or shape[3] == '1' or redis.call('HEXISTS', keys[2], device) == 1
    or redis.call('ZSCORE', keys[3], device) or redis.call('EXISTS', keys[10]) == 1
  if not is_known then
    return 0
  end
  local records, bytes = drop_stream(keys[1], keys[10])
  redis.call('HDEL', keys[2], device)
  redis.call('HDEL', keys[12], device)
  redis.call('ZREM', keys[3], device)
  redis.call('ZREM', keys[4], device)
  take_off_unsaved(keys[1], keys[5], keys[4], records, bytes)
  redis.call('DEL', keys[7])
  local before_id = tonumber(redis.call('GET', keys[6]) or '0') * shape[2] + shape[1]
  local aside = redis.call('EXISTS', keys[8]) == 1 and last_id(keys[8]) or '0-0'
  local generation = mark and mark.generation + 1 or 1
  redis.call('HSET', keys[9], device, string.format('%s %.0f %s %d', name, before_id, aside, generation))
  redis.call('HSETNX', keys[11], 'asked_ms', string.format('%.0f', clock_ms()))
  redis.call('HSET', keys[11], 'state', 'queued')
  redis.call('HINCRBY', keys[11], 'waiting_records', records)
  announce({ device })
  return 1
end

-- KEYS: store quarantine quarantine_state replayed deleting. ARGV: store id, device.
-- Takes what is of a device that is being deleted out of the quarantine: its stream is made anew, since XDEL would
-- corrupt it. Returns how many entries that were.
local function cleanse(keys, args)
  local mark = read_mark(redis.call('HGET', keys[5], args[2]))
  if not mark or redis.call('EXISTS', keys[2]) == 0 then
    return 0
  end
  local newest, kept, gone = last_id(keys[2]), {}, 0
  for _, entry in ipairs(redis.call('XRANGE', keys[2], '-', '+')) do
    if entry[2][2] == args[2] and is_before(entry, mark) then
      gone = gone + 1
      redis.call('HINCRBY', keys[3], 'bytes', -#entry[2][10])
      redis.call('SREM', keys[4], entry[1])
    else
      kept[#kept + 1] = entry
    end
  end
  if gone == 0 then
    return 0
  end
  redis.call('UNLINK', keys[2])
  for _, entry in ipairs(kept) do
    redis.call('XADD', keys[2], entry[1], unpack(entry[2]))
  end
  if #kept == 0 then
    redis.call('XADD', keys[2], 'MAXLEN', 0, newest, 'device', '')
  else
    redis.call('XSETID', keys[2], newest)
  end
  redis.call('HINCRBY', keys[3], 'deleted', gone)
  return gone
end

-- KEYS: store deletion. ARGV: store id, the version of the table that is noted as the caller knows it, then fields and
-- values. Returns 1 if they were noted, 0 if another worker was as far meanwhile.
local function note_deletion(keys, args)
  if (redis.call('HGET', keys[2], 'version') or '') ~= args[2] or redis.call('EXISTS', keys[2]) == 0 then
    return 0
  end
  redis.call('HSET', keys[2], unpack(args, 3))
  return 1
end

-- KEYS: store deleting deletion left. ARGV: store id, device, what stands in `deleting` of it as the caller knows it,
-- s that the deletion is remembered, then the files that may hold its records and are to be swept.
-- Ends a deletion, if it was not asked for again meanwhile: nothing names the device any more. Returns 1, or 0.
local function complete(keys, args)
  if redis.call('HGET', keys[2], args[2]) ~= args[3] then
    return 0
  end
  redis.call('HDEL', keys[2], args[2])
  redis.call('HINCRBY', keys[1], 'deleted', 1)
  redis.call('HSET', keys[3], 'state', 'done', 'done_ms', string.format('%.0f', clock_ms()), 'to_look_at', '0')
  redis.call('HDEL', keys[3], 'trouble')
  redis.call('EXPIRE', keys[3], args[4])
  redis.call('DEL', keys[4])
  for at = 5, #args do
    redis.call('SADD', keys[4], args[at])
  end
  redis.call('EXPIRE', keys[4], args[4])
  return 1
end

local function register(name, act, flags)
  redis.register_function { function_name = 'whimbrel_LIBRARY_' .. name, callback = act, flags = flags }
end

-- What may grow without end may be refused when memory is full; all others help to empty it.
register('append', of_store(append), {})
register('setup', setup, { 'allow-oom' })
register('upgrade', of_store(upgrade), { 'allow-oom' })
register('intend', of_store(intend), { 'allow-oom' })
register('finish', of_store(finish), { 'allow-oom' })
register('allot', of_store(allot), {})
register('intend_allotted', of_store(intend_allotted), { 'allow-oom' })
register('note_trouble', of_store(note_trouble), { 'allow-oom' })
register('quarantine', of_store(quarantine), { 'allow-oom' })
register('set_aside', of_store(set_aside), { 'allow-oom' })
register('replay', of_store(replay), {})
register('take_over', take_over, { 'allow-oom' })
register('replace', of_store(replace), { 'allow-oom' })
register('reopen', of_store(reopen), { 'allow-oom' })
register('forget', of_store(forget), { 'allow-oom' })
register('cleanse', of_store(cleanse), { 'allow-oom' })
register('note_deletion', of_store(note_deletion), { 'allow-oom' })
register('complete', of_store(complete), { 'allow-oom' })
register('offer_archived', of_store(offer_archived), {})
register('note_erased', of_store(note_erased), { 'allow-oom' })
register('replace_latest', of_store(replace_latest), { 'allow-oom' })
register('outdated', of_store(outdated), { 'allow-oom' })
register('rebuilt', of_store(rebuilt), { 'allow-oom' })
