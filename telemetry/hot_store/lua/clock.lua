-- The clock of the machine, which may be set at any time.

local HOUR_MS, DAY_MS = 3600000, 86400000

-- What the clock shows.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The clock, from what the store knows of it (keys.py): `now_ms`, what it shows; `newest_ms`, the greatest that it
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
