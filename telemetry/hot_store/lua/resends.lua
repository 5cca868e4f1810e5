-- Records that are sent again.

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

-- What `recent` is to keep of a device whose entries before `after_id` go: its last marks. `marks` are those of the
-- entries, or UNREAD.
local function marks_kept(marks, recent_key, device, stream, after_id)
  if marks == UNREAD then
    marks = marks_in(stream, '(' .. after_id)
  end
  local old = #marks < RECENT * MARK and redis.call('HGET', recent_key, device) or ''
  return string.sub(old .. marks, -math.max(#marks, RECENT * MARK))
end
