/** 250 means kept: what another node has, when it is said to have it, and how long. */
import { describe, expect, test } from 'bun:test'
import type { MessageId, NodeId } from '../src/base/ids.ts'
import { PIECE_BYTES } from '../src/base/limits.ts'
import { MESSAGE } from '../src/cluster/contract.ts'
import { type Entry, encodeCommit, encodeEntry, readEntries } from '../src/cluster/copy-wire.ts'
import { AloneError } from '../src/store/queue.ts'
import { commitOf, type Message, type QueuedRecipient } from '../src/store/queued.ts'
import { bytesOf, type CopyNode, CopyWorld } from './copy-world.ts'
import type { MeshLink } from './mesh.ts'

const SMALL = bytesOf(4_000)
const LARGE = bytesOf(300_000)
const EMPTY = new Uint8Array(0)
/** Many worlds: for a machine that does much else. */
const HEAVY_MS = 60_000

/** What `node` has of the message of another one, body and all. */
async function holds(node: CopyNode, id: string, body: Uint8Array): Promise<boolean> {
  const copy = [...node.queue.copies()].find((one) => one.id === id)
  if (copy === undefined) return false
  return Buffer.compare(await node.bodyOf(copy), body) === 0
}

async function restarted(node: CopyNode): Promise<void> {
  node.crash()
  await node.start()
}

/** Sees every entry; `act` false: it is lost. */
function watch(
  world: CopyWorld,
  act: (from: CopyNode, to: CopyNode, entry: Entry) => boolean | undefined,
): void {
  world.mesh.fate = (from, to, { type, body }) => {
    if (type !== MESSAGE.mail) return { delayMs: 0 }
    const entries = readEntries(body) ?? []
    const isLost = entries.some((entry) => act(world.node(from), world.node(to), entry) === false)
    return isLost ? null : { delayMs: 0 }
  }
}

function linkOf(from: CopyNode, to: CopyNode): MeshLink {
  return from.mesh.links.open.get(to.id) as MeshLink
}

function finish(node: CopyNode, message: Message): void {
  const all = message.recipients.map((_, index) => index)
  node.queue.mark('done', message, all, { reply: '250 ok' })
  for (const recipient of message.recipients) recipient.state = 'done'
  node.queue.settle(message)
}

/** As the queue's worker does beside its mark. */
function set(recipient: QueuedRecipient | undefined, to: Partial<QueuedRecipient>): void {
  Object.assign(recipient as QueuedRecipient, to)
}

describe('a mail', () => {
  for (const [size, body] of [
    ['small', SMALL],
    ['large', LARGE],
    ['empty', EMPTY],
  ] as const) {
    test(`that is ${size} is durable on the candidate of highest rank before it is answered`, async () => {
      const world = await CopyWorld.of(3)
      const [owner] = world.nodes as [CopyNode]
      const id = owner.nextId()
      const [first, second] = world.order(owner, id) as [CopyNode, CopyNode]
      const message = await world.until(owner.accept(body, { id }))
      expect([...message.holders]).toEqual([[first.id, 'kept']])
      await restarted(first)
      expect(await holds(first, id, body)).toBe(true)
      expect(second.queue.copyCount).toBe(0)
      const copy = first.queue.copy(id)
      expect([copy?.owner, copy?.term]).toEqual([owner.id, 1])
      expect([...(copy?.holders.keys() ?? [])]).toEqual([first.id])
    })
  }

  test('that is large goes while it arrives: little is left to send after the dot', async () => {
    const world = await CopyWorld.of(2)
    const [owner] = world.nodes as [CopyNode]
    const before = owner.mesh.sent.bytes
    const draft = owner.queue.draft(owner.nextId())
    for (let at = 0; at < 10; at += 1) draft.add(bytesOf(PIECE_BYTES))
    await world.pass(100)
    expect(owner.mesh.sent.bytes - before).toBeGreaterThan(10 * PIECE_BYTES)
  })

  test('with 10,000 recipients is kept, envelope and all', async () => {
    const world = await CopyWorld.of(2, { segmentBytes: 2 * 1024 * 1024 })
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const message = await world.until(owner.accept(SMALL, { recipients: 10_000 }))
    expect([...message.holders.values()]).toEqual(['kept'])
    const copy = other.queue.copy(message.id)
    expect(copy?.envelope.recipients).toEqual(message.envelope.recipients)
    expect(encodeCommit(commitOf(message, 0)).length).toBeGreaterThan(1024 * 1024)
    expect(await holds(other, message.id, SMALL)).toBe(true)
  })

  test('says how long its copy took, when there is one', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    const count = (what: string): number =>
      Number(
        new RegExp(`^postern_replication_ack_seconds_${what} (.*)$`, 'm').exec(
          owner.mesh.observer.metrics(),
        )?.[1],
      )
    for (let number = 0; number < 3; number += 1) await world.until(owner.accept(SMALL))
    expect([count('count'), count('bucket{le="0\\.5"}')]).toEqual([3, 3])
    // The first one says nothing.
    const id = owner.nextId()
    const [first] = world.order(owner, id) as [CopyNode]
    first.disk.syncMs = 5_000
    await world.until(owner.accept(SMALL, { id }))
    expect([count('count'), count('bucket{le="3"}'), count('bucket{le="6"}')]).toEqual([4, 3, 4])
    expect(count('sum')).toBeGreaterThan(3)
  })

  test('that comes with many others shares its messages with them', async () => {
    const world = await CopyWorld.of(2)
    const [owner] = world.nodes as [CopyNode]
    const before = owner.mesh.sent.messages
    const many = Array.from({ length: 200 }, () => owner.accept(SMALL))
    const messages = await world.until(Promise.all(many))
    expect(messages.every(({ holders }) => [...holders.values()][0] === 'kept')).toBe(true)
    expect(owner.mesh.sent.messages - before).toBeLessThan(40)
  })

  test('is inert until its COMMIT: without one nothing of it stays, after a restart too', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const kept: string[] = []
    other.queue.onKept(({ id }) => kept.push(id))
    const draft = owner.queue.draft(owner.nextId())
    for (let at = 0; at < 60; at += 1) draft.add(bytesOf(PIECE_BYTES))
    await world.pass(500)
    expect(other.spool.sparse().length).toBeGreaterThan(0)
    draft.abort()
    await world.pass(100)
    expect(other.spool.sparse()).toEqual([])
    const lost = owner.queue.draft(owner.nextId())
    for (let at = 0; at < 60; at += 1) lost.add(bytesOf(PIECE_BYTES))
    await world.pass(500)
    expect(other.spool.sparse().length).toBeGreaterThan(0)
    world.mesh.unlink(owner.mesh, other.mesh)
    await world.pass(500)
    expect([kept.length, other.queue.copyCount]).toEqual([0, 0])
    // What it took of the disk is free again.
    expect(other.spool.sparse()).toEqual([])
    await restarted(other)
    expect(other.queue.copyCount).toBe(0)
  })

  test('that is refused after its copy was kept is forgotten there', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const id = owner.nextId()
    const draft = owner.queue.draft(id)
    draft.add(SMALL)
    const { copying } = draft
    const message = await world.until(owner.accept(SMALL))
    const copied = copying?.commit(
      { ...commitOf(message, 0), envelope: { ...message.envelope, id } },
      async () => ({ kind: 'memory', bytes: SMALL }),
    )
    await world.until(copied as Promise<unknown>)
    expect(other.queue.copy(id)).not.toBeNull()
    copying?.abort()
    await world.pass(1_000)
    expect(other.queue.copy(id)).toBeNull()
    expect(other.queue.copy(message.id)).not.toBeNull()
  })
})

describe('a candidate', () => {
  test('that dies at 4 of 5 MB is followed by the next one at once, from the spool', async () => {
    const world = await CopyWorld.of(3, { bytesPerMs: 125_000 })
    const [owner] = world.nodes as [CopyNode]
    const id = owner.nextId()
    const [first, second] = world.order(owner, id) as [CopyNode, CopyNode]
    const body = bytesOf(5 * 1024 * 1024)
    const accepting = owner.accept(body, { id, pauseMs: 2 })
    let got = 0
    watch(world, (_, to, entry) => {
      if (to !== first || entry.kind !== 'piece') return
      got += entry.bytes.length
      const isNow = got >= 4 * 1024 * 1024 && got - entry.bytes.length < 4 * 1024 * 1024
      if (isNow) world.mesh.clock.after(0, () => first.crash())
      return
    })
    const startedMs = world.mesh.clock.nowMs
    const message = await world.until(accepting)
    expect(message.holders.get(second.id)).toBe('kept')
    expect(world.mesh.clock.nowMs - startedMs).toBeLessThan(2_000)
    await restarted(second)
    expect(await holds(second, id, body)).toBe(true)
  })

  test('that says nothing is followed by the next one after 3 s; both hold it once it answers', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    const id = owner.nextId()
    const [first, second] = world.order(owner, id) as [CopyNode, CopyNode]
    first.disk.syncMs = 5_000
    const startedMs = world.mesh.clock.nowMs
    const message = await world.until(owner.accept(SMALL, { id }))
    expect(world.mesh.clock.nowMs - startedMs).toBeWithin(3_000, 3_200)
    expect([...message.holders].sort()).toEqual(
      [[first.id, 'sent'] as const, [second.id, 'kept'] as const].sort() as never,
    )
    await world.pass(6_000)
    expect([...message.holders.values()]).toEqual(['kept', 'kept'])
    // Each knows of the other.
    expect([...(first.queue.copy(id)?.holders.keys() ?? [])].sort()).toEqual(
      [first.id, second.id].sort(),
    )
  })

  test('two that say nothing: 250 with one copy after 6 s, counted, and 451 where one is required', async () => {
    for (const rule of ['prefer', 'require'] as const) {
      const world = await CopyWorld.of(4)
      const [owner, ...others] = world.nodes as [CopyNode, ...CopyNode[]]
      owner.rule = rule
      for (const other of others) other.disk.syncMs = 60_000
      const startedMs = world.mesh.clock.nowMs
      const accepting = owner.accept(SMALL)
      const outcome = await world.until(accepting.catch((error: unknown) => error))
      expect(world.mesh.clock.nowMs - startedMs).toBeWithin(6_000, 6_300)
      expect(outcome instanceof AloneError).toBe(rule === 'require')
      expect(owner.mesh.observer.count('unreplicated_accepts_total')).toBe(
        rule === 'prefer' ? 1 : 0,
      )
      expect(owner.copies.alone).toBe(rule === 'prefer' ? 1 : 0)
      // What was refused is void there too, whenever they wake.
      for (const other of others) other.disk.syncMs = 1
      await world.pass(90_000)
      const kept = others.filter((other) => other.queue.copyCount > 0).length
      expect(kept > 0).toBe(rule === 'prefer')
    }
  })

  test('that loses its link after the COMMIT is followed by the next one at once', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    const id = owner.nextId()
    const [first, second] = world.order(owner, id) as [CopyNode, CopyNode]
    watch(world, (from, to, entry) => {
      if (from === first && entry.kind === 'kept') {
        world.mesh.clock.after(0, () => world.mesh.unlink(from.mesh, to.mesh))
        return false
      }
      return
    })
    const startedMs = world.mesh.clock.nowMs
    const message = await world.until(owner.accept(SMALL, { id }))
    expect(world.mesh.clock.nowMs - startedMs).toBeLessThan(200)
    expect([message.holders.get(first.id), message.holders.get(second.id)]).toEqual([
      'sent',
      'kept',
    ])
    // It has it durably, and says so when it is back: its acknowledgement was lost.
    world.mesh.fate = () => ({ delayMs: 0 })
    world.mesh.join()
    await world.pass(1_000)
    expect(message.holders.get(first.id)).toBe('kept')
  })

  test('that refuses, drains or has a full disk is passed over without a wait', async () => {
    for (const how of ['refuses', 'drains', 'full'] as const) {
      const world = await CopyWorld.of(3)
      const [owner] = world.nodes as [CopyNode]
      const id = owner.nextId()
      const [first, second] = world.order(owner, id) as [CopyNode, CopyNode]
      if (how === 'refuses') first.refusal = 'it is behind its barrier'
      if (how === 'full') first.disk.free = 0.09
      if (how === 'drains') world.draining.add(first.id)
      if (how === 'drains') world.changed()
      for (const body of [SMALL, LARGE]) {
        const startedMs = world.mesh.clock.nowMs
        const message = await world.until(owner.accept(body, { id, pauseMs: 20 }))
        expect(message.holders.get(second.id)).toBe('kept')
        expect(world.mesh.clock.nowMs - startedMs).toBeLessThan(500)
        expect(first.queue.copyCount).toBe(0)
      }
    }
  })

  test('that knows a later owner says so, and the message goes nowhere', async () => {
    const world = await CopyWorld.of(3)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const message = await world.until(owner.accept(SMALL))
    const holder = world.node([...message.holders.keys()][0] as NodeId)
    await world.until(holder.queue.adopt([{ id: message.id, term: 2 }]))
    expect(await world.until(owner.copies.give(message, holder.id))).toBe(false)
    expect(owner.stale).toEqual([`${message.id} 2 ${holder.id}`])
    owner.stale.length = 0
    set(message.recipients[0], { state: 'deferred' })
    owner.queue.mark('defer', message, [0], { at: 1, attempts: 1 })
    await world.pass(1_000)
    expect(owner.stale).toContain(`${message.id} 2 ${holder.id}`)
    expect(await world.until(owner.copies.give(message, holder.id))).toBe(false)
    expect(holder.queue.get(message.id)?.owner).toBe(holder.id)
    void other
  })

  test('that is slow takes as much as it can: what waits for it is bounded and it gets all of it', async () => {
    const world = await CopyWorld.of(2, { bytesPerMs: 4_000 })
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const body = bytesOf(6 * 1024 * 1024)
    const accepting = owner.accept(body, { pauseMs: 1 })
    const link = linkOf(owner, other)
    let most = 0
    watch(world, () => {
      most = Math.max(most, link.backlogBytes)
      return undefined
    })
    const message = await world.until(accepting)
    expect([...message.holders.values()]).toEqual(['kept'])
    expect(most).toBeLessThan(4 * 1024 * 1024)
    expect(await holds(other, message.id, body)).toBe(true)
  })

  test('whose disk is slow is not flooded: no more than its window is under way', async () => {
    const world = await CopyWorld.of(2, { bytesPerMs: 1_000_000, segmentBytes: 2 * 1024 * 1024 })
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    other.disk.writeMs = 400
    let credit = 0
    let most = 0
    let mostUnwritten = 0
    watch(world, (_, __, entry) => {
      if (entry.kind === 'piece') credit += entry.bytes.length
      if (entry.kind === 'credit') credit -= entry.bytes
      most = Math.max(most, credit)
      mostUnwritten = Math.max(mostUnwritten, other.spool.backlogBytes)
      return undefined
    })
    const body = bytesOf(8 * 1024 * 1024)
    const message = await world.until(owner.accept(body, { pauseMs: 1 }))
    expect([...message.holders.values()]).toEqual(['kept'])
    expect(most).toBeLessThan(5 * 1024 * 1024)
    // Credit is for what is in the files, else this grows with what is sent.
    expect(mostUnwritten).toBeGreaterThan(1024 * 1024)
    expect(mostUnwritten).toBeLessThan(5 * 1024 * 1024)
  })

  test('whose link was away for a moment while the body came gets all of it after the dot', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const accepting = owner.accept(LARGE, { pauseMs: 100 })
    await world.pass(150)
    world.mesh.unlink(owner.mesh, other.mesh)
    await world.pass(50)
    world.mesh.join()
    const message = await world.until(accepting)
    expect([...message.holders.values()]).toEqual(['kept'])
    expect(await holds(other, message.id, LARGE)).toBe(true)
  })

  test('with a full link gets it when there is room again', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const link = linkOf(owner, other)
    link.full = true
    const accepting = [owner.accept(SMALL), owner.accept(LARGE, { pauseMs: 10 })]
    await world.pass(1_000)
    expect(other.queue.copyCount).toBe(0)
    link.full = false
    const messages = await world.until(Promise.all(accepting))
    expect(messages.map(({ holders }) => [...holders.values()])).toEqual([['kept'], ['kept']])
  })
})

describe('the link', () => {
  for (const [size, body] of [
    ['small', SMALL],
    ['large', LARGE],
  ] as const) {
    test(
      `may be lost at every point of a ${size} mail: 'kept' is durable, and all ends with two copies, then none`,
      async () => {
        let points = 0
        for (let cutAt = 0; ; cutAt += 1) {
          const world = await CopyWorld.of(3)
          const [owner] = world.nodes as [CopyNode]
          const id = owner.nextId()
          const [first] = world.order(owner, id) as [CopyNode]
          let seen = 0
          world.mesh.fate = (from, to, { type }) => {
            const isBetween =
              (from === owner.id && to === first.id) || (from === first.id && to === owner.id)
            if (type !== MESSAGE.mail || !isBetween) return { delayMs: 0 }
            seen += 1
            if (seen !== cutAt + 1) return { delayMs: 0 }
            world.mesh.clock.after(0, () => world.mesh.unlink(owner.mesh, first.mesh))
            return null
          }
          const message = await world.until(owner.accept(body, { id, pauseMs: 3 }))
          const keeper = [...message.holders].find(([, state]) => state === 'kept')?.[0]
          expect(keeper).toBeDefined()
          const holder = world.node(keeper as NodeId)
          await restarted(holder)
          expect(await holds(holder, id, body)).toBe(true)
          world.mesh.join()
          await world.pass(5_000)
          const states = [...message.holders.values()]
          expect(states.filter((state) => state === 'kept').length).toBeGreaterThan(0)
          finish(owner, message)
          await world.pass(2_000)
          world.mesh.join()
          await world.pass(2_000)
          expect([...owner.queue.owed()]).toEqual([])
          expect(world.nodes.map((node) => node.queue.copyCount)).toEqual([0, 0, 0])
          points = cutAt
          if (seen <= cutAt) break
        }
        expect(points).toBeGreaterThan(3)
      },
      HEAVY_MS,
    )
  }

  test(
    "by chance: nothing is ever 'kept' that a power cut takes",
    async () => {
      for (let seed = 1; seed <= 6; seed += 1) {
        const world = await CopyWorld.of(3, { seed })
        const { random } = world.mesh
        const [owner, ...others] = world.nodes as [CopyNode, ...CopyNode[]]
        for (const node of world.nodes) node.disk.syncMs = random.below(80)
        const bodies = new Map<string, Uint8Array>()
        const said = new Set<string>()
        let toCrash: CopyNode | null = null
        watch(world, (from, _, entry) => {
          if (entry.kind !== 'kept' || toCrash !== null) return
          for (const { id } of entry.names) said.add(`${from.id} ${id}`)
          if (random.below(4) !== 0) return
          toCrash = from
          world.mesh.clock.after(0, () => from.crash())
          return
        })
        const accepting = Array.from({ length: 12 }, async () => {
          const id = owner.nextId()
          bodies.set(id, bytesOf(random.below(200_000), random.below(250)))
          await owner.accept(bodies.get(id) as Uint8Array, { id, pauseMs: random.below(10) })
        })
        await world.until(Promise.all(accepting))
        for (const other of others) {
          if (!other.mesh.isUp) await other.start()
          else await restarted(other)
          for (const [id, body] of bodies) {
            if (said.has(`${other.id} ${id}`)) expect(await holds(other, id, body)).toBe(true)
          }
        }
      }
    },
    HEAVY_MS,
  )
})

describe('a holder', () => {
  async function kept(count = 3) {
    const world = await CopyWorld.of(count)
    const [owner] = world.nodes as [CopyNode]
    const message = await world.until(owner.accept(SMALL, { recipients: 3 }))
    const holder = world.node([...message.holders.keys()][0] as NodeId)
    return { world, owner, message, holder }
  }

  test('hears of marks within 200 ms, and only how they stand then', async () => {
    const { world, owner, message, holder } = await kept()
    const kinds: string[] = []
    watch(world, (_, __, entry) => {
      if (entry.kind === 'marks') kinds.push(...entry.marks.map(({ kind }) => kind))
      return undefined
    })
    const [first, second, third] = message.recipients
    set(first, { state: 'trying' })
    set(second, { state: 'trying' })
    owner.queue.mark('try', message, [0, 1])
    await world.pass(300)
    const copy = holder.queue.copy(message.id)
    expect(copy?.recipients.map(({ state }) => state)).toEqual(['trying', 'trying', 'queued'])
    owner.queue.mark('done', message, [0], { reply: '250 ok' })
    set(first, { state: 'done' })
    set(third, { state: 'trying' })
    owner.queue.mark('try', message, [2])
    const at = owner.mesh.wallMs() + 60_000
    owner.queue.mark('defer', message, [2], { at, attempts: 1, reply: '451 later' })
    set(third, { state: 'deferred', attempts: 1, nextTryMs: at, lastReply: '451 later' })
    // An attempt that has not come to its dot says nothing.
    set(second, { state: 'deferred', nextTryMs: at, attempts: 1 })
    owner.queue.mark('defer', message, [1], { at, attempts: 1 })
    set(second, { state: 'trying' })
    await world.pass(300)
    expect(copy?.recipients.map(({ state }) => state)).toEqual(['done', 'deferred', 'deferred'])
    expect(copy?.recipients[2]?.nextTryMs).toBeWithin(at - 500, at + 500)
    expect(kinds).toEqual(['try', 'done', 'defer', 'defer'])
  })

  test('hears of a recipient that the hop has refused as of none that is in doubt', async () => {
    const { world, owner, message, holder } = await kept()
    for (const recipient of message.recipients) set(recipient, { state: 'trying', attempts: 1 })
    owner.queue.mark('try', message, [0, 1, 2])
    // Its notification is being made: until then nobody has been told.
    owner.queue.mark('defer', message, [1], { at: owner.mesh.wallMs(), attempts: 1 })
    await world.pass(300)
    const copy = holder.queue.copy(message.id)
    expect(copy?.recipients.map(({ state }) => state)).toEqual(['trying', 'deferred', 'trying'])
  })

  test('hears of a message that is done only that: no TRY, no DONE', async () => {
    const { world, owner, message, holder } = await kept()
    const kinds: string[] = []
    watch(world, (from, _, entry) => {
      if (from === owner) kinds.push(entry.kind)
      return undefined
    })
    owner.queue.mark('try', message, [0, 1, 2])
    for (const recipient of message.recipients) recipient.state = 'trying'
    finish(owner, message)
    await world.until(owner.queue.synced())
    await world.pass(1_000)
    expect(kinds).toEqual(['discard'])
    expect(holder.queue.copyCount).toBe(0)
    expect([...owner.queue.owed()]).toEqual([])
  })

  test('is asked to forget until it says so, over lost links and restarts of both', async () => {
    const { world, owner, message, holder } = await kept()
    world.mesh.unlink(owner.mesh, holder.mesh)
    await world.pass(100)
    finish(owner, message)
    await world.pass(10_000)
    expect(holder.queue.copyCount).toBe(1)
    await restarted(owner)
    await restarted(holder)
    expect([...owner.queue.owed()].map(({ id }) => id)).toEqual([message.id])
    // The acknowledgement is lost once.
    let lost = 0
    watch(world, (from, to, entry) => {
      if (entry.kind !== 'told' || lost > 0) return
      lost += 1
      world.mesh.clock.after(0, () => world.mesh.unlink(from.mesh, to.mesh))
      return false
    })
    world.mesh.join()
    await world.pass(1_000)
    expect([lost, [...owner.queue.owed()].length]).toEqual([1, 1])
    world.mesh.join()
    await world.pass(1_000)
    expect([...owner.queue.owed()]).toEqual([])
    await restarted(holder)
    expect(holder.queue.copyCount).toBe(0)
  })

  test('says that it has forgotten when that is durable', async () => {
    const { world, owner, message, holder } = await kept()
    holder.disk.syncMs = 50
    let told = 0
    watch(world, (from, _, entry) => {
      if (from !== holder || entry.kind !== 'told') return
      told += 1
      world.mesh.clock.after(0, () => holder.crash())
      return
    })
    finish(owner, message)
    await world.until(owner.queue.synced())
    await world.pass(1_000)
    expect(told).toBe(1)
    await holder.start()
    expect(holder.queue.copyCount).toBe(0)
  })

  test('that answers marks has not yet answered the DISCARD that came with them', async () => {
    const { world, owner, message, holder } = await kept(2)
    const other = await world.until(owner.accept(SMALL, { recipients: 2 }))
    holder.disk.syncMs = 50
    finish(owner, message)
    await world.until(owner.queue.synced())
    owner.queue.mark('done', other, [0], { reply: '250 ok' })
    set(other.recipients[0], { state: 'done' })
    for (let step = 0; step < 1_000 && [...owner.queue.owed()].length > 0; step += 1) {
      await world.pass(1)
    }
    await restarted(holder)
    expect(holder.queue.copy(message.id)).toBeNull()
    expect(holder.queue.copy(other.id)).not.toBeNull()
  })

  test('that missed marks hears how all stands when its link is back, and after a restart', async () => {
    for (const how of ['link', 'owner', 'under way'] as const) {
      const { world, owner, message, holder } = await kept()
      if (how === 'under way') {
        watch(world, (_, __, { kind }) => {
          if (kind !== 'marks') return
          world.mesh.clock.after(0, () => world.mesh.unlink(owner.mesh, holder.mesh))
          world.mesh.fate = () => ({ delayMs: 0 })
          return false
        })
      } else world.mesh.unlink(owner.mesh, holder.mesh)
      await world.pass(100)
      owner.queue.mark('done', message, [0], { reply: '250 ok' })
      set(message.recipients[0], { state: 'done' })
      await world.pass(1_000)
      if (how === 'owner') await restarted(owner)
      world.mesh.join()
      await world.pass(1_000)
      const copy = holder.queue.copy(message.id)
      expect(copy?.recipients.map(({ state }) => state)).toEqual(['done', 'queued', 'queued'])
    }
  })

  test('that the owner forgot of is known again when it says what it has, and hears how all stands', async () => {
    const { world, owner, message, holder } = await kept()
    world.mesh.unlink(owner.mesh, holder.mesh)
    await world.pass(100)
    // As after a crash that took the record.
    owner.queue.setHolder(message, holder.id, null)
    owner.queue.mark('done', message, [0], { reply: '250 ok' })
    set(message.recipients[0], { state: 'done' })
    world.mesh.join()
    await world.pass(1_000)
    expect(message.holders.get(holder.id)).toBe('kept')
    const copy = holder.queue.copy(message.id)
    expect(copy?.recipients.map(({ state }) => state)).toEqual(['done', 'queued', 'queued'])
  })

  test('that was removed is owed nothing', async () => {
    const { world, owner, message, holder } = await kept()
    world.mesh.unlink(owner.mesh, holder.mesh)
    finish(owner, message)
    await world.pass(1_000)
    expect([...owner.queue.owed()].length).toBe(1)
    world.standings.set(holder.id, 'evicted')
    world.changed()
    expect([...owner.queue.owed()]).toEqual([])
  })

  test('is owed nothing that an heir found done already, once it was removed', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    const message = await world.until(owner.accept(SMALL))
    const [heir, other] = world.nodes.filter((node) => node !== owner) as [CopyNode, CopyNode]
    for (const node of [heir, other]) await world.until(owner.copies.give(message, node.id))
    owner.queue.mark('done', message, [0], { reply: '250 ok' })
    set(message.recipients[0], { state: 'done' })
    await world.pass(1_000)
    owner.crash()
    world.standings.set(owner.id, 'evicted')
    world.changed()
    await world.until(heir.queue.adopt([{ id: message.id, term: 2 }]))
    await world.pass(2_000)
    expect([...heir.queue.owed()]).toEqual([])
    expect(other.queue.copyCount).toBe(0)
  })

  test('says what it has and is asked to forget it only when the end is durable', async () => {
    const { world, owner, message, holder } = await kept()
    world.mesh.unlink(owner.mesh, holder.mesh)
    await world.pass(100)
    owner.disk.syncMs = 3_000
    finish(owner, message)
    let isDurable = false
    owner.queue.synced().then(() => {
      isDurable = true
    })
    const asked: boolean[] = []
    watch(world, (_, __, entry) => {
      if (entry.kind === 'discard') asked.push(isDurable)
      return undefined
    })
    world.mesh.join()
    await world.pass(5_000)
    expect(new Set(asked)).toEqual(new Set([true]))
    expect([holder.queue.copyCount, [...owner.queue.owed()].length]).toEqual([0, 0])
  })

  test('that has taken it over says so when that is durable', async () => {
    const { world, owner, message, holder } = await kept()
    holder.disk.syncMs = 3_000
    let isDurable = false
    const adopting = holder.queue.adopt([{ id: message.id, term: 2 }]).then(() => {
      isDurable = true
    })
    owner.queue.mark('done', message, [0], { reply: '250 ok' })
    set(message.recipients[0], { state: 'done' })
    await world.pass(1_000)
    expect([isDurable, owner.stale]).toEqual([false, []])
    await world.until(adopting)
    await world.pass(5_000)
    expect(new Set(owner.stale)).toEqual(new Set([`${message.id} 2 ${holder.id}`]))
  })

  test('gets no byte before it is durable that it may have one', async () => {
    const { world, owner, message } = await kept(3)
    const other = world.nodes.find(({ id }) => id !== owner.id && !message.holders.has(id))
    owner.disk.syncMs = 1_000
    let sent = 0
    watch(world, (from, _, entry) => {
      if (from === owner && entry.kind === 'commit') sent += 1
      return undefined
    })
    const giving = owner.copies.give(message, other?.id as NodeId)
    await world.pass(900)
    expect(sent).toBe(0)
    expect(await world.until(giving)).toBe(true)
    expect(sent).toBe(1)
  })

  test('hears of no attempt whose dot is not out: who takes it over may still say that it failed', async () => {
    for (const isTried of [false, true]) {
      const { world, owner, message } = await kept(3)
      const other = world.nodes.find(({ id }) => id !== owner.id && !message.holders.has(id))
      set(message.recipients[0], { state: 'trying', attempts: 1 })
      if (isTried) owner.queue.mark('try', message, [0])
      expect(await world.until(owner.copies.give(message, other?.id as NodeId))).toBe(true)
      const copy = other?.queue.copy(message.id)
      expect(copy?.recipients[0]?.state).toBe(isTried ? 'trying' : 'queued')
    }
  })

  test('keeps the new copy of a message that comes to life again', async () => {
    const { world, owner, message, holder } = await kept(2)
    finish(owner, message)
    await world.until(owner.queue.synced())
    // The 200 ms of the DISCARD end between its COMMIT and the moment when the queue has it.
    owner.disk.syncMs = 600
    const again = await world.until(owner.accept(SMALL, { id: message.id, recipients: 3 }))
    await world.pass(2_000)
    expect([...again.holders]).toEqual([[holder.id, 'kept']])
    expect(holder.queue.copy(message.id)).not.toBeNull()
    finish(owner, again)
    await world.pass(2_000)
    expect([holder.queue.copyCount, [...owner.queue.owed()].length]).toEqual([0, 0])
  })
})

describe('healing', () => {
  test('a mail that nobody took is copied as soon as somebody does', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    world.mesh.unlink(owner.mesh, other.mesh)
    await world.pass(10)
    const messages = await world.until(
      Promise.all([owner.accept(SMALL), owner.accept(LARGE), owner.accept(SMALL)]),
    )
    expect(owner.copies.alone).toBe(3)
    world.mesh.join()
    await world.pass(4_000)
    expect(messages.map(({ holders }) => [...holders.values()])).toEqual([
      ['kept'],
      ['kept'],
      ['kept'],
    ])
    expect(owner.copies.alone).toBe(0)
    expect(owner.mesh.observer.count('copies_healed_total')).toBe(3)
    expect(await holds(other, messages[1]?.id ?? '', LARGE)).toBe(true)
  })

  test('a holder that is dead for 15 s is replaced within 30 s, and may come back', async () => {
    const world = await CopyWorld.of(3, { latencyMs: 50 })
    const [owner] = world.nodes as [CopyNode]
    const messages = await world.until(
      Promise.all(Array.from({ length: 300 }, () => owner.accept(SMALL))),
    )
    const [, lost, other] = world.nodes as [CopyNode, CopyNode, CopyNode]
    const onLost = messages.filter(({ holders }) => holders.has(lost.id))
    expect(onLost.length).toBeWithin(50, 250)
    const [deferred] = onLost as [Message]
    owner.queue.mark('done', deferred, [0], { reply: '250' })
    lost.crash()
    let running = 0
    let most = 0
    watch(world, (_, __, entry) => {
      if (entry.kind === 'commit') running += 1
      if (entry.kind === 'kept') running -= entry.names.length
      most = Math.max(most, running)
      return undefined
    })
    await world.pass(14_000)
    expect(other.queue.copyCount).toBe(300 - onLost.length)
    await world.pass(30_000)
    expect(other.queue.copyCount).toBe(300)
    // Fresh mail goes first.
    expect(most).toBeWithin(1, 33)
    expect(owner.copies.alone).toBe(0)
    expect(owner.mesh.observer.count('copies_healed_total')).toBe(onLost.length)
    await lost.start()
    world.mesh.join()
    await world.pass(3_000)
    expect(lost.queue.copyCount).toBe(onLost.length)
    for (const message of messages) finish(owner, message)
    await world.pass(3_000)
    expect(world.nodes.map(({ queue }) => queue.copyCount)).toEqual([0, 0, 0])
    expect([...owner.queue.owed()]).toEqual([])
  })

  test('a holder that was removed is replaced at once and taken from the list', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    const message = await world.until(owner.accept(SMALL))
    const lost = world.node([...message.holders.keys()][0] as NodeId)
    world.standings.set(lost.id, 'left')
    for (const node of world.nodes) if (node !== lost) world.mesh.unlink(node.mesh, lost.mesh)
    world.changed()
    await world.pass(3_000)
    const other = world.nodes.find((node) => node !== owner && node !== lost) as CopyNode
    expect([...message.holders]).toEqual([[other.id, 'kept']])
  })

  test('the mail of a node that was alone is copied when it gets a peer', async () => {
    const world = await CopyWorld.of(1)
    const [owner] = world.nodes as [CopyNode]
    await world.until(Promise.all([owner.accept(SMALL), owner.accept(LARGE)]))
    await world.add(1)
    await world.pass(3_000)
    expect(world.nodes[1]?.queue.copyCount).toBe(2)
  })

  test('after a restart what others have counts again, and nothing is copied twice', async () => {
    const world = await CopyWorld.of(3)
    const [owner] = world.nodes as [CopyNode]
    await world.until(Promise.all(Array.from({ length: 50 }, () => owner.accept(SMALL))))
    await restarted(owner)
    world.mesh.join()
    await world.pass(10_000)
    expect([owner.queue.size, owner.copies.alone]).toEqual([50, 0])
    expect(owner.mesh.observer.count('copies_healed_total')).toBe(0)
    expect(world.nodes.reduce((sum, { queue }) => sum + queue.copyCount, 0)).toBe(50)
  })

  test('a copy says how the message stands now, not how it came', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    world.mesh.unlink(owner.mesh, other.mesh)
    await world.pass(10)
    const message = await world.until(owner.accept(SMALL, { recipients: 2 }))
    owner.queue.mark('done', message, [0], { reply: '250' })
    set(message.recipients[0], { state: 'done' })
    world.mesh.join()
    await world.pass(4_000)
    const copy = other.queue.copy(message.id)
    expect(copy?.recipients.map(({ state }) => state)).toEqual(['done', 'queued'])
    await restarted(other)
    expect(other.queue.copy(message.id)?.recipients.map(({ state }) => state)).toEqual([
      'done',
      'queued',
    ])
  })

  test('what is delivered without ever having had a copy is not counted for ever', async () => {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    world.mesh.unlink(owner.mesh, other.mesh)
    await world.pass(10)
    const messages = await world.until(Promise.all([owner.accept(SMALL), owner.accept(SMALL)]))
    expect(owner.copies.alone).toBe(2)
    for (const message of messages) finish(owner, message)
    expect(owner.copies.alone).toBe(0)
  })
})

describe('what a peer says', () => {
  async function linked() {
    const world = await CopyWorld.of(2)
    const [owner, other] = world.nodes as [CopyNode, CopyNode]
    const message = await world.until(owner.accept(SMALL))
    return { world, owner, other, message, link: linkOf(owner, other) }
  }

  test('and cannot be read closes the link, with a counter', async () => {
    const { world, other, link } = await linked()
    link.send(MESSAGE.mail, new Uint8Array([1, 0, 0, 0, 99]), true)
    await world.pass(100)
    expect(other.mesh.links.open.size).toBe(0)
    expect(other.mesh.observer.count('copies_garbled_total')).toBe(1)
  })

  test('of a COMMIT that is not his own, or of places that there are not, does so too', async () => {
    for (const what of ['owner', 'place'] as const) {
      const { world, owner, other, message, link } = await linked()
      const id = owner.nextId()
      const commit = {
        ...commitOf(message, 0),
        owner: other.id,
        envelope: { ...message.envelope, id },
      }
      const entry =
        what === 'owner'
          ? encodeEntry({ kind: 'commit', id, pieces: 0, json: encodeCommit(commit), last: SMALL })
          : encodeEntry({
              kind: 'marks',
              number: 1,
              marks: [{ id: message.id, term: 1, kind: 'done', payload: { r: [1] } }],
            })
      link.send(MESSAGE.mail, entry, true)
      await world.pass(100)
      expect(other.mesh.links.open.size).toBe(0)
      expect(other.queue.copy(id)).toBeNull()
      expect(other.queue.copy(message.id)?.recipients[0]?.state).toBe('queued')
    }
  })

  test('with bytes missing, or in another order, is refused', async () => {
    const { world, owner, other, message, link } = await linked()
    const send = (id: MessageId, order: readonly number[], pieces: number, last: Uint8Array) => {
      const commit = { ...commitOf(message, 0), envelope: { ...message.envelope, id } }
      const parts = order.map((index) =>
        encodeEntry({ kind: 'piece', id, index, bytes: SMALL.subarray(0, 1_000) }),
      )
      const json = encodeCommit(commit)
      parts.push(encodeEntry({ kind: 'commit', id, pieces, json, last }))
      link.send(MESSAGE.mail, new Uint8Array(Buffer.concat(parts)), true)
      return id
    }
    const wrong = [
      send(owner.nextId(), [], 0, SMALL.subarray(1)),
      send(owner.nextId(), [], 1, SMALL),
      send(owner.nextId(), [0, 2], 2, SMALL.subarray(2_000)),
      send(owner.nextId(), [0, 0, 1], 3, SMALL.subarray(3_000)),
    ]
    const right = send(owner.nextId(), [0, 1], 2, SMALL.subarray(2_000))
    await world.pass(100)
    expect(wrong.map((id) => other.queue.copy(id))).toEqual([null, null, null, null])
    expect(other.queue.copy(right)).not.toBeNull()
    expect(other.mesh.observer.metrics()).toContain('postern_copies_refused_total{why="gap"} 4')
    expect(other.mesh.links.open.size).toBe(1)
  })
})
