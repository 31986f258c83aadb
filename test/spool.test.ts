/** The spool and the queue on it: what was acknowledged survives, marks never go before their mail. */
import { afterAll, expect, test } from 'bun:test'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { pause, SystemClock } from '../src/base/clock.ts'
import { type Disk, systemDisk } from '../src/base/files.ts'
import type { MessageId, NodeId, SpoolId } from '../src/base/ids.ts'
import { MessageIds } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { readBody } from '../src/store/extents.ts'
import { Queue } from '../src/store/queue.ts'
import { isFinal, type Message } from '../src/store/queued.ts'
import type { Spool } from '../src/store/spool.ts'
import { aCommit } from './commits.ts'

const root = mkdtempSync(join(tmpdir(), 'postern-spool-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const NODE = '00000000000000aa' as NodeId
const clock = new SystemClock()
const observer = new Observer(clock, () => {})
const ids = new MessageIds('00000000000000aa' as NodeId, 1, clock)
const SEGMENT = 64 * 1024

type Opened = { readonly queue: Queue; readonly spool: Spool; readonly failures: string[] }

async function open(
  dir: string,
  options: {
    readonly freeBytes?: () => number
    readonly observer?: Observer
    readonly disk?: Disk
    readonly segmentBytes?: number
  } = {},
): Promise<Opened> {
  mkdirSync(dir, { recursive: true })
  const failures: string[] = []
  const opened = await Queue.open(
    {
      dir,
      spoolId: '00000000000000bb' as SpoolId,
      clock,
      observer: options.observer ?? observer,
      freeSpace: () => ({ freeBytes: options.freeBytes?.() ?? 1e12, totalBytes: 1e12 }),
      segmentBytes: options.segmentBytes ?? SEGMENT,
      disk: options.disk ?? { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: (error) => failures.push(error.message),
    },
    { clock, observer: options.observer ?? observer, node: NODE },
  )
  return { ...opened, failures }
}

async function accept(queue: Queue, body: Uint8Array, recipients = 1): Promise<Message> {
  const id = ids.next()
  const draft = queue.draft(id)
  for (let offset = 0; offset < body.length; offset += 8_192)
    draft.add(body.subarray(offset, offset + 8_192))
  return await queue.commit(draft, aCommit(id, body.length, recipients, clock.wallMs()), null)
}

async function bytesOf(message: Message): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of readBody(message.body(), systemDisk)) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}

function snapshotOf(dir: string, name: string): string {
  const copy = join(root, name)
  rmSync(copy, { recursive: true, force: true })
  mkdirSync(copy)
  for (const file of readdirSync(dir)) copyFileSync(join(dir, file), join(copy, file))
  return copy
}

function finish(queue: Queue, message: Message, index: number): void {
  queue.mark('done', message, [index], { reply: '250 ok' })
  const recipient = message.recipients[index]
  if (recipient !== undefined) recipient.state = 'done'
  queue.settle(message)
}

test('a committed message survives a reopening, byte for byte, with its states', async () => {
  const dir = join(root, 'survives')
  const { queue, spool } = await open(dir)
  const body = Buffer.from('Subject: x\r\n\r\n'.padEnd(30_000, 'y'))
  const message = await accept(queue, body, 3)
  finish(queue, message, 1)
  queue.mark('defer', message, [2], { at: 123, attempts: 2, reply: '451 later' })
  await spool.close()
  const again = await open(dir)
  const found = again.queue.get(message.id)
  expect(found?.recipients.map(({ state }) => state)).toEqual(['queued', 'done', 'deferred'])
  expect(found?.recipients[2]).toMatchObject({
    attempts: 2,
    nextTryMs: 123,
    lastReply: '451 later',
  })
  expect(found === null ? '' : await bytesOf(found)).toBe(body.toString('latin1'))
  await again.spool.close()
})

test('a delivery that was under way at a crash is in doubt, not forgotten and not fresh', async () => {
  const dir = join(root, 'doubt')
  const { queue, spool } = await open(dir)
  const message = await accept(queue, Buffer.from('x\r\n'))
  queue.mark('try', message, [0])
  await spool.close()
  const again = await open(dir)
  expect(again.queue.get(message.id)?.recipients[0]).toMatchObject({
    state: 'inDoubt',
    doubtful: true,
  })
  await again.spool.close()
})

test('a body without its commit is nobody’s: not a message after a restart', async () => {
  const dir = join(root, 'draft')
  const { queue, spool } = await open(dir)
  queue.draft(ids.next()).add(Buffer.from('never committed'))
  await spool.written()
  await spool.close()
  const again = await open(dir)
  expect(again.queue.size).toBe(0)
  await again.spool.close()
})

test('a commit that was taken back stays back', async () => {
  const dir = join(root, 'void')
  const { queue, spool } = await open(dir)
  const kept = await accept(queue, Buffer.from('kept\r\n'))
  const undone = await accept(queue, Buffer.from('undone\r\n'))
  queue.draft(undone.id).abort('commit')
  await spool.written()
  await spool.close()
  const again = await open(dir)
  expect([...again.queue.messages()].map(({ id }) => id)).toEqual([kept.id])
  await again.spool.close()
})

test('a torn record at the end is dropped, and what stands before it is not', async () => {
  const dir = join(root, 'torn')
  const { queue, spool } = await open(dir)
  const first = await accept(queue, Buffer.from('first\r\n'))
  const second = await accept(queue, Buffer.from('second\r\n'))
  const cut = second.pieces[0]?.offset ?? 0
  await spool.close()
  const path = join(dir, '00000001.seg')
  const bytes = readFileSync(path)
  bytes.fill(0, cut + 3)
  writeFileSync(path, bytes)
  const again = await open(dir)
  expect([...again.queue.messages()].map(({ id }) => id)).toEqual([first.id])
  await again.spool.close()
})

test('a flipped bit in the middle loses one message, says so, and no other', async () => {
  const dir = join(root, 'flip')
  const { queue, spool } = await open(dir)
  const messages = [
    await accept(queue, Buffer.from('one\r\n')),
    await accept(queue, Buffer.from('two\r\n')),
  ]
  messages.push(await accept(queue, Buffer.from('three\r\n')))
  const at = messages[1]?.pieces[0]?.offset ?? 0
  await spool.close()
  const path = join(dir, '00000001.seg')
  const bytes = readFileSync(path)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(path, bytes)
  const watched = new Observer(clock, () => {})
  const again = await open(dir, { observer: watched })
  expect([...again.queue.messages()].map(({ id }) => id)).toEqual(
    [messages[0], messages[2]].map((m) => m?.id ?? ('' as MessageId)),
  )
  expect(watched.count('spool_corrupt_total')).toBe(1)
  await again.spool.close()
})

test('a damaged segment header does not take its mail with it', async () => {
  const dir = join(root, 'header')
  const { queue, spool } = await open(dir)
  const message = await accept(queue, Buffer.from('kept\r\n'))
  await spool.close()
  const path = join(dir, '00000001.seg')
  const bytes = readFileSync(path)
  bytes[9] = (bytes[9] ?? 0) ^ 4
  writeFileSync(path, bytes)
  const watched = new Observer(clock, () => {})
  const again = await open(dir, { observer: watched })
  expect(again.queue.get(message.id)).not.toBeNull()
  expect(watched.count('spool_corrupt_total')).toBe(1)
  await again.spool.close()
})

test('segments are used again: ten times their size goes through a spool that does not grow', async () => {
  const dir = join(root, 'reuse')
  const { queue, spool } = await open(dir)
  // The mark comes some messages later, so it stands in another segment than its commit.
  const late: Message[] = []
  for (let count = 0; count < 600; count++) {
    late.push(await accept(queue, Buffer.alloc(8_000, 120)))
    const oldest = late.length > 12 ? late.shift() : undefined
    if (oldest !== undefined) finish(queue, oldest, 0)
    if (count % 40 !== 0) continue
    // What the reused segments held before must not come back behind their new end.
    await spool.written()
    const copy = await open(snapshotOf(dir, 'reuse-copy'))
    expect([...copy.queue.messages()].map(({ id }) => id)).toEqual(late.map(({ id }) => id))
    await copy.spool.close()
  }
  expect(spool.segmentCount).toBeLessThan(24)
  await spool.close()
})

test('the kernel may write what is unsynced in any order: no commit comes back without its marks', async () => {
  const dir = join(root, 'order')
  const kept = new Map<string, Buffer>()
  const over: MessageId[] = []
  const cuts: { readonly files: ReadonlyMap<string, Buffer>; readonly over: number }[] = []
  const pathOf = (fd: number): string => readlinkSync(`/proc/self/fd/${fd}`)
  const disk: Disk = {
    ...systemDisk,
    write: (fd, buffers, position, done) => {
      const bytes = Buffer.concat(buffers)
      const count = writeSync(fd, bytes, 0, bytes.length, position)
      // The power goes here, and of all that no sync has covered only this is on the platter.
      const path = pathOf(fd)
      if (position === 0 && kept.has(path)) {
        cuts.push({ files: new Map([...kept, [path, readFileSync(path)]]), over: over.length })
      }
      queueMicrotask(() => done(null, count))
    },
    sync: (fd, done) => {
      kept.set(pathOf(fd), readFileSync(pathOf(fd)))
      queueMicrotask(() => done(null))
    },
    // A journal keeps the order of names.
    remove: (path) => {
      systemDisk.remove(path)
      kept.delete(path)
    },
  }
  const { queue, spool } = await open(dir, { disk })
  for (let round = 0; round < 6; round++) {
    // Each mark stands in another segment than its commit.
    const late: Message[] = []
    for (let count = 0; count < 60; count++)
      late.push(await accept(queue, Buffer.alloc(8_000, 120)))
    for (const message of late) finish(queue, message, 0)
    await queue.synced()
    over.push(...late.map(({ id }) => id))
    // A body that nobody waits for goes over their segments, at once.
    const draft = queue.draft(ids.next())
    for (let piece = 0; piece < 150; piece++) draft.add(Buffer.alloc(8_000, 121))
    await spool.written()
    draft.abort()
    await queue.synced()
  }
  await spool.close()
  expect(cuts.length).toBeGreaterThan(20)
  for (const [number, { files, over: count }] of cuts.entries()) {
    const copy = join(root, `order-${number}`)
    mkdirSync(copy)
    for (const [path, content] of files) writeFileSync(join(copy, basename(path)), content)
    const after = await open(copy)
    expect(over.slice(0, count).filter((id) => after.queue.get(id) !== null)).toEqual([])
    await after.spool.close()
    rmSync(copy, { recursive: true })
  }
}, 60_000)

test('a large body is given up while it is synced: no file is closed under the sync', async () => {
  const closed = new Set<number>()
  const waiting: (() => void)[] = []
  const disk: Disk = {
    ...systemDisk,
    open: (path, how) => {
      const fd = systemDisk.open(path, how)
      closed.delete(fd)
      return fd
    },
    close: (fd) => {
      closed.add(fd)
      systemDisk.close(fd)
    },
    sync: (fd, done) => {
      const end = (): void => done(closed.has(fd) ? new Error('EBADF') : null)
      if (isSlow) waiting.push(end)
      else end()
    },
  }
  let isSlow = false
  const { queue, spool, failures } = await open(join(root, 'given-up'), { disk })
  const draft = queue.draft(ids.next())
  for (let at = 0; at < 200; at += 1) draft.add(new Uint8Array(8_192))
  await spool.written()
  isSlow = true
  const synced = spool.synced()
  while (waiting.length === 0) await Bun.sleep(0)
  draft.abort()
  // All its segments are free now, and most of them go back to the disk when they may.
  await pause(clock, 20)
  isSlow = false
  for (const end of waiting.splice(0)) end()
  await synced
  expect(failures).toEqual([])
  await spool.close()
})

test('a body that arrives slowly is not overwritten by all that passes it', async () => {
  const dir = join(root, 'slow')
  const { queue, spool } = await open(dir)
  const id = ids.next()
  const draft = queue.draft(id)
  draft.add(Buffer.alloc(8_000, 115))
  for (let count = 0; count < 300; count++)
    finish(queue, await accept(queue, Buffer.alloc(8_000, 120)), 0)
  draft.add(Buffer.alloc(8_000, 116))
  const message = await queue.commit(draft, aCommit(id, 16_000, 1, clock.wallMs()), null)
  expect(await bytesOf(message)).toBe('s'.repeat(8_000) + 't'.repeat(8_000))
  await spool.close()
  const again = await open(dir)
  const found = again.queue.get(id)
  expect(found === null ? '' : await bytesOf(found)).toBe('s'.repeat(8_000) + 't'.repeat(8_000))
  await again.spool.close()
})

test('one old message does not pin the disk: it is copied forward, and survives that', async () => {
  const dir = join(root, 'compact')
  const { queue, spool } = await open(dir)
  const old: Message[] = []
  for (let count = 0; count < 1_200; count++) {
    const message = await accept(queue, Buffer.alloc(6_000, 97 + (count % 26)))
    if (count % 60 === 0) old.push(message)
    else finish(queue, message, 0)
  }
  await spool.synced()
  // 7 MB went through; 20 live messages of 6 KB may hold no more than this.
  expect(spool.segmentCount).toBeLessThan(60)
  await spool.close()
  const again = await open(dir)
  expect([...again.queue.messages()].map(({ id }) => id).sort()).toEqual(
    old.map(({ id }) => id).sort(),
  )
  for (const message of again.queue.messages()) expect((await bytesOf(message)).length).toBe(6_000)
  await again.spool.close()
})

test('when the disk is full there is no room for mail, and marks still go through', async () => {
  const dir = join(root, 'full')
  let freeBytes = 1e12
  const { queue, spool } = await open(dir, { freeBytes: () => freeBytes })
  const message = await accept(queue, Buffer.alloc(8_000, 120))
  const until = clock.monoMs() + 5_000
  while (spool.segmentCount < 7 && clock.monoMs() < until) await accept(queue, Buffer.from('x'))
  freeBytes = 0
  // The space of the disk is read at most once a second.
  await new Promise<void>((resolve) => clock.after(1_050, resolve))
  let refused = 0
  const kept: Message[] = []
  for (let count = 0; count < 100; count++) {
    await accept(queue, Buffer.alloc(8_000, 121)).then(
      (accepted) => kept.push(accepted),
      () => {
        refused += 1
      },
    )
  }
  expect(queue.hasRoom(8_000)).toBe(false)
  expect(refused).toBeGreaterThan(0)
  finish(queue, message, 0)
  for (const accepted of kept) queue.mark('try', accepted, [0])
  await queue.synced()
  await spool.close()
  const again = await open(dir)
  expect(again.queue.get(message.id)).toBeNull()
  expect(kept.every(({ id }) => again.queue.get(id)?.recipients[0]?.state === 'inDoubt')).toBe(true)
  await again.spool.close()
}, 20_000)

test('a spool that is closed while it writes ahead leaves the directory to the next one', async () => {
  const dir = join(root, 'closed')
  let isClosed = false
  const late: string[] = []
  const disk: Disk = {
    ...systemDisk,
    write: (fd, buffers, position, done) =>
      systemDisk.write(fd, buffers, position, (error, count) =>
        clock.after(20, () => done(error, count)),
      ),
    remove: (path) => {
      if (isClosed) late.push(path)
      systemDisk.remove(path)
    },
    close: (fd) => {
      if (isClosed) late.push(String(fd))
      systemDisk.close(fd)
    },
  }
  const { spool } = await open(dir, { disk })
  await spool.close()
  isClosed = true
  await new Promise<void>((resolve) => clock.after(100, resolve))
  expect(late).toEqual([])
})

test('what is appended in one turn is one write, and bodies wait for company until somebody asks', async () => {
  const writes: number[] = []
  const disk: Disk = {
    ...systemDisk,
    write: (fd, buffers, position, done) => {
      // Not what is written ahead.
      if (buffers[0]?.toString('latin1', 0, 4) === 'PREC') writes.push(buffers.length)
      systemDisk.write(fd, buffers, position, done)
    },
  }
  const { queue, spool } = await open(join(root, 'company'), { disk, segmentBytes: 1 << 20 })
  await spool.synced()
  const [one, other] = [queue.draft(ids.next()), queue.draft(ids.next())]
  for (let count = 0; count < 3; count += 1) {
    one.add(Buffer.alloc(40_000, 'a'))
    other.add(Buffer.alloc(40_000, 'b'))
    await Promise.resolve()
  }
  // 240,000 bytes, and nobody to miss them.
  expect(writes).toEqual([])
  expect((await one.extents()).length).toBe(3)
  expect(writes).toEqual([6])
  one.add(Buffer.alloc(40_000, 'a'))
  // A mark does not wait, for a kill would miss it.
  other.abort()
  await Promise.resolve()
  expect(writes).toEqual([6, 2])
  await spool.written()
  for (let count = 0; count < 7; count += 1) one.add(Buffer.alloc(40_000, 'a'))
  await Promise.resolve()
  expect(writes).toEqual([6, 2, 7])
  one.abort()
  await spool.close()
})

test('a directory in which no file can be made is asked again later, not in a loop', async () => {
  const dir = join(root, 'gone')
  const watched = new Observer(clock, () => {})
  const { queue, spool } = await open(dir, { observer: watched })
  await accept(queue, Buffer.from('x'))
  rmSync(dir, { recursive: true })
  // Two tries fit into this time: one at once, one a second later.
  await new Promise<void>((resolve) => clock.after(1_500, resolve))
  expect(watched.count('spool_refused_total')).toBeGreaterThan(0)
  expect(watched.count('spool_refused_total')).toBeLessThan(5)
  await spool.close()
}, 20_000)

/**
 * The law: whatever is done in whatever order, a copy of the files at any moment (what kill -9
 * leaves) holds every acknowledged message that is not final, and no final recipient is live.
 */
for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`any history, cut at any moment, keeps what was acknowledged (seed ${seed})`, async () => {
    const random = new SeededRandom(seed)
    let dir = join(root, `law-${seed}`)
    let opened = await open(dir)
    const bodies = new Map<MessageId, string>()
    const states = new Map<MessageId, string[]>()
    for (let step = 0; step < 1_500; step++) {
      const { queue, spool } = opened
      const act = random.below(100)
      const live = [...queue.messages()]
      const some = live[random.below(Math.max(1, live.length))]
      if (act < 45) {
        const body = Buffer.alloc(
          1 + random.below(random.below(10) === 0 ? 40_000 : 3_000),
          65 + random.below(26),
        )
        const message = await accept(queue, body, 1 + random.below(3))
        bodies.set(message.id, body.toString('latin1'))
        states.set(
          message.id,
          message.recipients.map(() => 'live'),
        )
      } else if (act < 85 && some !== undefined) {
        const index = random.below(some.recipients.length)
        if (isFinal(some.recipients[index]?.state ?? 'done')) continue
        const known = states.get(some.id)
        if (random.below(4) === 0) {
          queue.mark('defer', some, [index], { at: step, attempts: 1, reply: 'later' })
        } else {
          finish(queue, some, index)
          if (known !== undefined) known[index] = 'done'
        }
      } else if (act < 97) await spool.written()
      else {
        await spool.written()
        const copy = snapshotOf(dir, `law-${seed}-${step}`)
        await spool.close()
        dir = copy
        opened = await open(dir)
        for (const [id, known] of states) {
          const found = opened.queue.get(id)
          if (known.every((state) => state === 'done')) expect(found).toBeNull()
          else {
            expect(
              found?.recipients.map(({ state }) => String(isFinal(state) ? 'done' : 'live')),
            ).toEqual(known)
            expect(found === null ? '' : await bytesOf(found)).toBe(bodies.get(id) ?? 'gone')
          }
        }
      }
    }
    expect(opened.failures).toEqual([])
    await opened.spool.close()
  }, 60_000)
}

/**
 * A disk that keeps only what was in the file when a sync began, and is slow: what a power cut
 * leaves at the worst. Every message whose commit was answered by then must be on it.
 */
for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`what a power cut leaves holds all that was acknowledged before it (seed ${seed})`, async () => {
    const random = new SeededRandom(seed)
    const dir = join(root, `power-${seed}`)
    const kept = new Map<string, Buffer>()
    const disk: Disk = {
      ...systemDisk,
      write: (fd, buffers, position, done) => {
        const bytes = Buffer.concat(buffers)
        clock.after(random.below(4), () =>
          done(null, writeSync(fd, bytes, 0, bytes.length, position)),
        )
      },
      sync: (fd, done) => {
        const path = readlinkSync(`/proc/self/fd/${fd}`)
        const content = readFileSync(path)
        clock.after(random.below(6), () => {
          kept.set(path, content)
          done(null)
        })
      },
    }
    const { queue, spool } = await open(dir, { disk })
    const acknowledged = new Map<MessageId, Message>()
    const senders = Array.from({ length: 8 }, async (_, sender) => {
      for (let count = 0; count < 40; count++) {
        const size = random.below(8) === 0 ? 30_000 : 500 + random.below(3_000)
        const message = await accept(queue, Buffer.alloc(size, 65 + sender))
        acknowledged.set(message.id, message)
        if (random.below(3) > 0) continue
        // The mark may be on the disk before anybody is told so.
        acknowledged.delete(message.id)
        queue.mark('done', message, [0])
        await queue.synced()
        const [recipient] = message.recipients
        if (recipient !== undefined) recipient.state = 'done'
        queue.settle(message)
      }
    })
    let cuts = 0
    const cut = async (): Promise<void> => {
      cuts += 1
      const copy = join(root, `power-${seed}-${cuts}`)
      mkdirSync(copy)
      for (const [path, content] of kept) writeFileSync(join(copy, basename(path)), content)
      const expected = [...acknowledged.keys()]
      const after = await open(copy)
      const missing = expected.filter((id) => after.queue.get(id) === null)
      expect(missing).toEqual([])
      await after.spool.close()
      rmSync(copy, { recursive: true })
    }
    const all = Promise.all(senders)
    let isOver = false
    void all.then(() => {
      isOver = true
    })
    while (!isOver) {
      await new Promise<void>((resolve) => clock.after(15, resolve))
      await cut()
    }
    await all
    expect(cuts).toBeGreaterThan(3)
    await spool.close()
  }, 60_000)
}
