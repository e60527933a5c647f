-- ARGV: unacked, index, tag prefix, count, largest message, bytes that end the batch, steps, rotate, several pops at once,
-- queues; for each queue its name as JSON and its lists by step.
-- Answer: seconds, microseconds, more (stopped before the lists were empty), then pairs: 16 * queue + step and the message
-- (its size if it is too large, -1 if the list is none).
local A, call = ARGV, redis.call
local unacked, index, prefix, want = A[1], A[2], A[3], tonumber(A[4])
local largest, full, steps, rotate, many = tonumber(A[5]), tonumber(A[6]), tonumber(A[7]), A[8] == '1', A[9] == '1'
local now = call('TIME')
local score = string.format('%d.%06d', now[1], now[2])
local out, n, bytes = {tonumber(now[1]), tonumber(now[2]), 0}, 0, 0
local entries, scores, taken, from = {}, {}, {}, {}
local function take(q, s, m)
  n = n + 1
  bytes = bytes + #m
  local tag = prefix .. n
  entries[2 * n - 1] = tag
  entries[2 * n] = '[' .. m .. ',"",' .. A[q] .. ']'
  scores[2 * n - 1] = score
  scores[2 * n] = tag
  out[#out + 1] = q * 16 + s
  out[#out + 1] = #m > largest and #m or m
  taken[n] = m
  from[n] = A[q + s]
end
local function pop(q, s, count)
  local list = A[q + s]
  local got
  if count > 1 then got = redis.pcall('RPOP', list, count) else got = redis.pcall('RPOP', list) end
  if not got then return 0 end
  if type(got) == 'string' then take(q, s, got) return 1 end
  if got.err then out[#out + 1] = q * 16 + s out[#out + 1] = -1 return 0 end
  for _, m in ipairs(got) do take(q, s, m) end
  return #got
end
local order = {}
for i = 1, tonumber(A[10]) do order[i] = 11 + (i - 1) * (steps + 1) end
for s = 1, steps do
  local empty, live = {}, #order
  while live > 0 and n < want and bytes < full do
    local i = 1
    while empty[order[i]] do i = i + 1 end
    local q = order[i]
    local chunk = 1
    if many and (live == 1 or not rotate) then chunk = math.min(want - n, 32) end
    local got = pop(q, s, chunk)
    if got < chunk then empty[q] = true live = live - 1 end
    if got > 0 and rotate then table.remove(order, i) order[#order + 1] = q end
  end
  if live > 0 then out[3] = 1 break end
end
-- A small sorted set is a list that is searched from its head, with each score read as text: dozens of additions cost more than all
-- else. A member of over 64 bytes makes a tree of it, and it stays one when that member has gone.
local seed = n >= 8 and prefix .. string.rep('-', 65)
if seed then redis.pcall('ZADD', index, score, seed) end
for i = 1, 2 * n, 200 do
  local last = math.min(i + 199, 2 * n)
  local put = redis.pcall('HSET', unacked, unpack(entries, i, last))
  if type(put) == 'number' then put = redis.pcall('ZADD', index, unpack(scores, i, last)) end
  if type(put) ~= 'number' then
    -- Lua does not roll back: put all back where it was, and say why.
    for k = n, 1, -1 do
      call('RPUSH', from[k], taken[k])
      redis.pcall('HDEL', unacked, entries[2 * k - 1])
      redis.pcall('ZREM', index, entries[2 * k - 1])
    end
    for key, kind in pairs({[unacked] = 'hash', [index] = 'zset'}) do
      local t = call('TYPE', key)['ok']
      if t ~= kind and t ~= 'none' then return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. t) end
    end
    return put
  end
end
if seed then call('ZREM', index, seed) end
return out
