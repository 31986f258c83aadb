/** What a message costs while it waits; of a whole node: test/process/memory.test.ts (L17). */

import { heapStats } from 'bun:jsc'
import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { systemDisk } from '../src/base/files.ts'
import { MessageIds, type NodeId, type SpoolId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { LiveConfig } from '../src/config/live.ts'
import { EMPTY_SNAPSHOT } from '../src/config/snapshot.ts'
import { QueueWorker } from '../src/mail/queue/worker.ts'
import type { Outcome } from '../src/message/outcome.ts'
import { Queue } from '../src/store/queue.ts'
import type { NewCommit } from '../src/store/queued.ts'
import { aCommit } from './commits.ts'

const MESSAGES = 5_000
/** It has 10: itself, recipient, piece, place, lists, id, text. One that does not rest has 22. */
const OBJECTS_MAX = 20
/** What is planned for one of them has 5 to 7: the plan, its task, the list of recipients, the hop. */
const PLANNED_MAX = 8
const BODY = Buffer.from('Subject: x\r\n\r\n')
const NODE = '00000000000000aa' as NodeId
const clock = new SystemClock()
const observer = new Observer(clock, () => {})
const ids = new MessageIds(NODE, 1, clock)
const names = Array.from({ length: MESSAGES }, () => ids.next())
const dir = mkdtempSync(join(tmpdir(), 'postern-waiting-'))
afterAll(() => rmSync(dir, { recursive: true }))

function open(): ReturnType<typeof Queue.open> {
  const options = {
    dir,
    spoolId: '00000000000000bb' as SpoolId,
    clock,
    observer,
    freeSpace: () => ({ freeBytes: 1e12, totalBytes: 1e12 }),
    segmentBytes: 1024 * 1024,
    disk: { ...systemDisk, sync: (_: number, done: (error: null) => void) => done(null) },
    onFailure: (error: Error) => {
      throw error
    },
  }
  return Queue.open(options, { clock, observer, node: NODE })
}

/** Of the whole process: some 25,000 are not the queue's. */
function objects(): number {
  Bun.gc(true)
  return heapStats().objectCount
}

const LATER: Outcome = { kind: 'later', host: 'h', cause: '451 not now', dotSent: false }

/** Each next hop refuses what it is offered, after the TRY. */
function workerOf(queue: Queue, tried: () => void): QueueWorker {
  let hops = 0
  const live = new LiveConfig()
  // They came long ago.
  const settings = { ...EMPTY_SNAPSHOT.settings, 'queue.expire': 1e9, 'queue.warn': 0 }
  live.swap({ ...EMPTY_SNAPSHOT, settings })
  return new QueueWorker({
    queue,
    clock,
    observer,
    live,
    random: new SeededRandom(1),
    nodeName: (id) => ({ id, name: id }),
    routeKey: () => `hop ${hops++ % (2 * MESSAGES)}`,
    attempt: async (_, indexes, { beforeDot }) => {
      await beforeDot()
      tried()
      return indexes.map(() => LATER)
    },
    bounce: () => Promise.resolve(),
    progress: () => {},
  })
}

function given(at: number): NewCommit {
  const commit = aCommit(names[at] ?? ids.next(), BODY.length, 1, 1_000 + at)
  const envelope = { ...commit.envelope, sender: `ä${at}@x.test` }
  return { ...commit, envelope, prepend: `Received: ${at}\r\n` }
}

/** Takes all of them, tries each once, and gives the objects of the process then. */
async function fill(): Promise<number> {
  const { queue, spool } = await open()
  for (const [at, id] of names.entries()) {
    const draft = queue.draft(id)
    draft.add(BODY)
    const message = await queue.commit(draft, given(at), BODY)
    queue.mark('defer', message, [0], { at: 5, attempts: 1, reply: '451 later' })
    Object.assign(message.recipients[0] ?? {}, { state: 'deferred', nextTryMs: 5 })
    queue.settle(message)
  }
  await queue.synced()
  const count = objects()
  await spool.close()
  return count
}

test('a message that waits is few objects, here and after a start, and reads as it was committed', async () => {
  expect((await fill()) / MESSAGES).toBeLessThan(OBJECTS_MAX)

  const { queue, spool } = await open()
  queue.forgetReplayed()
  // Beside those of before: a timer of the spool that was closed holds them for a moment.
  expect(objects() / MESSAGES).toBeLessThan(OBJECTS_MAX + 12)
  expect(queue.size).toBe(MESSAGES)
  for (const [at, id] of names.entries()) {
    const { recipients: _, ...said } = given(at)
    const message = queue.get(id)
    expect(message?.commit).toEqual({ ...said, owner: NODE, term: 1, holders: [], pieces: 1 })
    expect(message?.receivedMs).toBe(1_000 + at)
    expect(message?.recipients[0]).toMatchObject({ state: 'deferred', lastReply: '451 later' })
  }
  await spool.close()
})

test('all of them tried again at once are no more objects when they wait again', async () => {
  const { queue, spool } = await open()
  queue.forgetReplayed()
  let tried = 0
  let done = Promise.withResolvers<void>()
  const worker = workerOf(queue, () => {
    tried += 1
    if (tried % MESSAGES === 0) done.resolve()
  })
  const settled = async (): Promise<number> => {
    await done.promise
    done = Promise.withResolvers()
    while (worker.running > 0) await queue.synced()
    return objects() / MESSAGES
  }
  const before = objects() / MESSAGES
  worker.resume()
  const once = await settled()
  expect(once - before).toBeLessThan(PLANNED_MAX)
  expect(worker.retry(() => true)).toBe(MESSAGES)
  expect(await settled()).toBeLessThan(once + 1)
  await worker.stop()
  await spool.close()
})
