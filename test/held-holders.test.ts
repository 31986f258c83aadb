/** Held mail has two holders: whoever dies, it is there, decided by one node, and released once. */
import { afterEach, describe, expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import {
  closePosts,
  DAY_MS,
  NAGY,
  type Post,
  passed,
  posts,
  RUIZ,
  settled,
  three,
  two,
} from './posts.ts'
import { refused as refusal } from './rooms.ts'

afterEach(closePosts)

const MINUTE_MS = 60_000

const sentOf = (all: readonly Post[]): readonly string[] => all.flatMap(({ sent }) => sent).sort()
const namesOf = (one: Post, id: MessageId): readonly string[] =>
  one.held.heldOne(id).row.holders.map(({ name }) => name)

describe('a release', () => {
  test('of a hundred mails from three nodes, three clicks each, at once: a hundred arrive', async () => {
    const { wires, all } = posts(3)
    const ids: MessageId[] = []
    for (let count = 0; count < 100; count++) {
      const owner = all[count % 3] as Post
      ids.push(await owner.hold(1, 'Subject: x\r\n\r\nbody\r\n', [all[(count + 1) % 3] as Post]))
    }
    wires.exchange()
    const clicks = ids.flatMap((id) => all.map((one) => one.held.release(RUIZ, id)))
    const ends = await Promise.allSettled(clicks)
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(100)
    await passed(wires, 10_000)
    expect(sentOf(all)).toEqual(ids.map((id) => `${id} 0`).sort())
  }, 60_000)

  test('waits until its holders have the claim', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    const done = a.held.release(RUIZ, id)
    await Promise.resolve()
    expect(a.sent).toEqual([])
    await done
    // What it sent the holder knows: it never sends it again.
    expect(b.held.heldOne(id).claims).toMatchObject([{ kind: 'release', by: 'ruiz' }])
    expect(a.sent).toEqual([`${id} 0`])
  })

  test('goes without a holder that is silent after a minute, and not before', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.cut.add('mx2')
    const done = a.held.release(RUIZ, id)
    await settled()
    await passed(wires, MINUTE_MS - 5_000)
    expect(a.sent).toEqual([])
    await passed(wires, 5_000)
    await done
    expect(a.sent).toEqual([`${id} 0`])
    const late = await a.hold(1, 'x', [b])
    wires.isLongCut = true
    await a.held.release(RUIZ, late)
    expect(a.sent).toHaveLength(2)
  })

  test('that was decided before a crash waits for its holders again', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    a.queue = 'hangs'
    void a.held.release(RUIZ, id)
    await settled()
    a.stop()
    wires.cut.add('mx2')
    await a.start()
    expect(a.sent).toEqual([])
    wires.cut.clear()
    await passed(wires, MINUTE_MS)
    expect(sentOf([a, b])).toEqual([`${id} 0`])
  })

  test('under partition is never two, wherever and however often it is clicked', async () => {
    const { wires, a, b, c } = three()
    const ids: MessageId[] = []
    for (let count = 0; count < 20; count++) ids.push(await a.hold(1, 'x', [b]))
    wires.exchange()
    wires.cut.add('mx1')
    const clicks = ids.flatMap((id) => [a, b, c].map((one) => one.held.release(RUIZ, id)))
    const over = Promise.allSettled(clicks)
    await passed(wires, 2 * MINUTE_MS)
    await over
    expect(sentOf([b, c])).toEqual([])
    wires.cut.clear()
    await passed(wires, 2 * MINUTE_MS)
    expect(sentOf([a, b, c])).toEqual(ids.map((id) => `${id} 0`).sort())
    for (const id of ids) expect(c.held.heldOne(id).row.pending).toEqual([])
  }, 60_000)
})

describe('the content of a held mail', () => {
  test('is read from a holder when its owner does not answer', async () => {
    const { wires, a, b, c } = three()
    const text = 'Subject: x\r\n\r\nthe very body\r\n'
    const id = await a.hold(1, text, [b])
    wires.exchange()
    wires.cut.add('mx1')
    for (const one of [b, c]) {
      const { stream, sizeBytes } = await one.held.heldSource(id)
      expect(await new Response(stream).text()).toBe(text)
      expect(sizeBytes).toBe(text.length)
    }
    expect(c.held.heldOne(id).waits?.words).toBe('waits for mx1')
  })

  test('gets a second holder when there was none, or when that one is gone', async () => {
    const { wires, a, b, c } = three()
    const text = `Subject: x\r\n\r\n${'line '.repeat(50_000)}\r\n`
    wires.cut.add('mx1')
    const id = await a.hold(2, text)
    await passed(wires, 30_000)
    expect(a.holders.share.alone).toBe(1)
    wires.cut.clear()
    await passed(wires, 10_000)
    const [first] = namesOf(a, id)
    const one = [b, c].find(({ node }) => node.name === first) as Post
    const other = one === b ? c : b
    expect(namesOf(other, id)).toEqual([one.node.name])
    expect(one.bodies.kept.get(id)?.bytes.toString()).toBe(text)
    expect(other.bodies.list()).toEqual([])
    expect(a.observer.count('held_healed_total')).toBe(1)
    wires.cut.add(one.node.name)
    await passed(wires, 10_000)
    expect(namesOf(other, id)).toContain(other.node.name)
    expect(other.bodies.kept.get(id)?.mail.owner).toBe(a.node.id)
    expect(a.holders.share.alone).toBe(0)
  })

  test('goes from its holders when its owner says so, and by no clock of theirs', async () => {
    const { wires, a, b } = two()
    const kept = await a.hold(1, 'x', [b])
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    await a.held.deleteHeld(RUIZ, id)
    await passed(wires, 11 * MINUTE_MS, 30_000)
    // Deleted, and still to be had: its owner has not removed it.
    expect(b.bodies.list()).toEqual([kept, id])
    expect(b.quarantine.expired(b.clock.wallMs() + 40 * DAY_MS, 10)).toEqual([])
    expect(b.quarantine.removable(b.clock.wallMs() + 40 * DAY_MS, 10)).toEqual([])
    a.keeper.start()
    await passed(wires, 15_000)
    for (const one of [a, b]) expect(one.bodies.list()).toEqual([kept])
  })

  test('that its owner has lost comes back from a holder, and is kept there until then', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'the body', [b])
    wires.exchange()
    a.stop()
    a.bodies.kept.clear()
    await a.start()
    wires.exchange()
    expect(a.quarantine.one(id)?.bodyGone).toBe(true)
    await settled()
    expect(b.bodies.list()).toEqual([id])
    await passed(wires, 10_000)
    expect(a.bodies.kept.get(id)?.bytes.toString()).toBe('the body')
    expect(a.quarantine.one(id)?.bodyGone).toBe(false)
    await b.held.release(NAGY, id)
    expect(a.sent).toEqual([`${id} 0`])
  })

  test('that a holder has lost is not counted on any more', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    b.stop()
    b.bodies.kept.clear()
    await b.start()
    await passed(wires, 10_000)
    // Found out, told, and made anew.
    await passed(wires, 15_000)
    expect(namesOf(a, id)).toEqual(['mx2'])
    expect(b.bodies.list()).toEqual([id])
  })

  test('that two had taken over apart goes from both when it is over', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b, c])
    wires.exchange()
    a.stop()
    wires.remove(a)
    wires.cut.add('mx2')
    await passed(wires, 10_000)
    for (const one of [b, c]) expect(one.held.heldOne(id).row.owner.name).toBe(one.node.name)
    wires.cut.clear()
    await passed(wires, 10_000)
    expect(b.shown()).toBe(c.shown())
    await b.held.deleteHeld(RUIZ, id)
    for (const one of [b, c]) one.keeper.start()
    await passed(wires, 11 * MINUTE_MS)
    for (const one of [b, c]) expect(one.bodies.list()).toEqual([])
  })

  test('that a disk which went back has forgotten is not counted on any more', async () => {
    const { wires, a, b } = two()
    b.stop()
    const id = await a.hold(1, 'x')
    // Its rows and its files are of before: that it had them is known to the owner alone.
    a.quarantine.setHolding(id, { has: [b.node.id] })
    await passed(wires, 15_000)
    await b.start()
    await passed(wires, 20_000)
    expect(namesOf(a, id)).toEqual(['mx2'])
    expect(b.bodies.list()).toEqual([id])
  })

  test('that comes after the row which says so is there, and not said to be lost', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x')
    a.quarantine.setHolding(id, { perhaps: [b.node.id] })
    wires.exchange()
    const { mail, bytes } = a.bodies.kept.get(id) ?? {}
    if (mail === undefined || bytes === undefined) throw new Error('its owner has it')
    b.bodies.keep(mail, bytes)
    b.holders.share.sealed(mail)
    await passed(wires, 5_000)
    expect(namesOf(a, id)).toEqual(['mx2'])
  })

  test('from a peer is looked at before it is kept', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x')
    const { mail, bytes } = a.bodies.kept.get(id) as { mail: never; bytes: Buffer }
    const good = mail as Record<string, unknown>
    for (const bad of [
      { ...good, places: [7] },
      { ...good, envelope: null },
      { ...good, row: { ...(good['row'] as object), id: 'x' } },
      { ...good, prepend: 7 },
    ]) {
      a.bodies.kept.set(id, { mail: bad as never, bytes })
      expect(await b.holders.share.keep({ id }, a.node.id)).toEqual({ kept: false })
    }
    a.bodies.kept.set(id, { mail, bytes })
    expect((await refusal(() => b.holders.share.keep({ id: 7 }, a.node.id))).code).toBe('invalid')
    expect(b.bodies.list()).toEqual([])
    expect(await b.holders.share.keep({ id }, a.node.id)).toEqual({ kept: true })
    expect(wires.asks).toBe(0)
  })
})

describe('an owner that is dead for sure', () => {
  test('is followed by a holder unasked, when it died with nothing that is not known', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(2, 'x', [b])
    wires.exchange()
    await a.held.release(RUIZ, id, 'r0@example.com')
    wires.exchange()
    wires.confirm(a, 100_000)
    await passed(wires, 10_000)
    expect(c.held.heldOne(id).row.owner.name).toBe('mx1')
    await passed(wires, 20_000)
    for (const one of [b, c]) {
      expect(one.held.heldOne(id).row.owner.name).toBe('mx2')
      expect(one.rows.owned('held', id)?.version[0]).toBe(2)
      expect(one.held.heldOne(id).waits).toBeNull()
    }
    expect(b.sent).toEqual([])
    await c.held.release(NAGY, id)
    expect(b.sent).toEqual([`${id} 1`])
    expect(b.observer.count('possible_duplicates_total')).toBe(0)
    const { events } = b.trace.message(id)
    expect(events.map(({ detail }) => detail)).toContain('taken over, confirmed dead: mx1')
    // The rest of it has two holders again.
    await passed(wires, 10_000)
    expect(namesOf(b, id)).toEqual(['mx3'])
  })

  test('is followed by one of its holders, the one of highest rank', async () => {
    const { wires, a, b, c } = three()
    const ids: MessageId[] = []
    for (let count = 0; count < 10; count++) ids.push(await a.hold(1, 'x', [b, c]))
    wires.exchange()
    wires.confirm(a, 200_000)
    await passed(wires, 20_000)
    const taken = [b, c].map((one) => one.observer.count('held_taken_total'))
    expect(taken.reduce((sum, count) => sum + count)).toBe(10)
    expect(b.shown()).toBe(c.shown())
    for (const id of ids) expect(c.held.heldOne(id).row.owner.name).not.toBe('mx1')
  })

  test('is not waited for by a click', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.confirm(a, 20_000)
    const detail = await c.held.release(NAGY, id)
    expect(detail.claims).toMatchObject([{ kind: 'release', by: 'nagy' }])
    expect(sentOf([a, b, c])).toEqual([`${id} 0`])
    expect(b.sent).toHaveLength(1)
  })

  test('and may have released before: the operator is asked, and told since when', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    // 31 s without contact before its machine refused: it may have gone on alone.
    wires.confirm(a, 300_000, 331_001)
    await passed(wires, 30_000)
    expect(b.held.heldOne(id).row.owner.name).toBe('mx1')
    for (const one of [b, c]) {
      const error = await refusal(() => one.held.release(NAGY, id))
      expect(error.code).toBe('doubtful')
      expect(error.message).toMatch(/^This mail may have been released on mx1 since 2026-.*Z, and/)
      expect(one.held.heldOne(id).waits).toMatchObject({ words: 'waits for mx1' })
    }
    expect(sentOf([b, c])).toEqual([])
    await c.held.release(NAGY, id, undefined, true)
    expect(b.sent).toEqual([`${id} 0`])
    expect(b.observer.count('possible_duplicates_total')).toBe(1)
    expect(b.audited).toContain('nagy held.takeover')
  })

  test('whose rows are not all here, or that was never heard, leaves a doubt', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.confirm(a, 20_000)
    const said = wires.absences.get(a.node.id)
    if (said === undefined) throw new Error('it is confirmed')
    wires.absences.set(a.node.id, { ...said, lastContactMs: null })
    expect((await refusal(() => b.held.release(NAGY, id))).code).toBe('doubtful')
    wires.absences.set(a.node.id, said)
    await b.held.release(NAGY, id)
    expect(b.sent).toEqual([`${id} 0`])
  })

  test('before it told of a mail: who has its content shows it, and takes it over', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(2, 'x', [b])
    wires.confirm(a, 1_000)
    await passed(wires, 15_000)
    for (const one of [b, c]) {
      expect(one.held.heldOne(id).row).toMatchObject({
        owner: a.node,
        recipients: ['r0@example.com', 'r1@example.com'],
      })
    }
    wires.confirm(a, 20_000)
    await c.held.release(NAGY, id)
    expect(b.sent).toEqual([`${id} 0`, `${id} 1`])
    expect(b.observer.count('possible_duplicates_total')).toBe(0)
  })

  test('and comes back before anybody took its mail has the first word on it', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(2, 'x')
    a.stop()
    const file = a.bodies.kept.get(id)
    if (file === undefined) throw new Error('it is held')
    b.bodies.kept.set(id, file)
    b.holders.share.sealed(file.mail)
    wires.confirm(a, 1_000)
    await passed(wires, 15_000)
    expect(b.rows.owned('held', id)?.version).toEqual([1, 0])
    wires.absences.clear()
    await a.start()
    await passed(wires, 15_000)
    for (const one of [a, b]) expect(one.rows.owned('held', id)?.version[1]).toBeGreaterThan(0)
    expect(namesOf(a, id)).toEqual(['mx2'])
    await b.held.release(NAGY, id)
    expect(a.sent).toHaveLength(2)
  })

  /** mx1 has released the first copy of three and dies; of what its queue did mx2 knows nothing. */
  async function cutOff(queue: Post['queue'], world = two()) {
    const { wires, a, b } = world
    const id = await a.hold(3, 'x', [b])
    wires.exchange()
    a.queue = queue
    void a.held.release(RUIZ, id, 'r0@example.com')
    await settled()
    expect(b.held.heldOne(id).claims).toHaveLength(1)
    wires.exchange()
    wires.confirm(a, 200_000)
    return { id, doubted: () => b.observer.count('possible_duplicates_total') }
  }

  test('had claimed, and perhaps sent: the next owner sends, tells and counts that copy', async () => {
    const world = two()
    const { wires, a, b } = world
    const { id, doubted } = await cutOff('takesLast', world)
    await passed(wires, 10_000)
    expect(a.sent).toEqual([`${id} 0`])
    expect(b.sent).toEqual([`${id} 0`])
    expect(doubted()).toBe(1)
    const { events } = b.trace.message(id)
    expect(
      events.filter(({ detail }) => detail.includes('twice')).map(({ recipient }) => recipient),
    ).toEqual(['r0@example.com'])
    // What mx1 had not decided it had not sent.
    await b.held.release(NAGY, id)
    expect(b.sent).toHaveLength(3)
    expect(doubted()).toBe(1)
  })

  test('had claimed, and the next owner is killed when its queue has it: that is counted at its start', async () => {
    const world = two()
    const { wires, b } = world
    b.queue = 'takesLast'
    const { id, doubted } = await cutOff('takesLast', world)
    await passed(wires, 10_000)
    expect(b.sent).toEqual([`${id} 0`])
    expect(doubted()).toBe(0)
    b.stop()
    await b.start()
    await passed(wires, 5_000)
    expect(b.sent).toEqual([`${id} 0`])
    expect(doubted()).toBe(1)
  })

  test('had sent, and told: the next owner sends nothing and counts nothing', async () => {
    const world = two()
    const { wires, a, b } = world
    const { id, doubted } = await cutOff('takes', world)
    await passed(wires, 10_000)
    expect(b.held.heldOne(id).row.owner.name).toBe('mx2')
    expect([a.sent, b.sent]).toEqual([[`${id} 0`], []])
    expect(doubted()).toBe(0)
  })

  test('and comes back before the next owner could send again: one arrives, whoever had it', async () => {
    for (const queue of ['takesLast', 'hangs'] as const) {
      const world = two()
      const { wires, a, b } = world
      b.queue = 'refuses'
      const { id, doubted } = await cutOff(queue, world)
      await passed(wires, 10_000)
      expect(b.held.heldOne(id).row.owner.name).toBe('mx2')
      expect(b.quarantine.doubted(id, [0, 1, 2])).toEqual([0])
      a.stop()
      wires.absences.clear()
      await a.start()
      await passed(wires, 30_000)
      expect(b.quarantine.doubted(id, [0, 1, 2])).toEqual([])
      b.queue = 'takes'
      await passed(wires, 2 * MINUTE_MS, 5_000)
      expect(sentOf([a, b])).toEqual([`${id} 0`])
      expect(doubted()).toBe(0)
    }
  })

  test('had claimed, as its next owner does not know: a third that does sends nothing out by that', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.isLongCut = true
    wires.cut.add('mx2')
    a.queue = 'takesLast'
    void a.held.release(RUIZ, id)
    await settled()
    wires.exchange()
    a.stop()
    c.isDown = true
    wires.cut.clear()
    wires.remove(a)
    await passed(wires, 10_000)
    c.isDown = false
    await passed(wires, 20_000)
    expect(c.held.heldOne(id).row.owner.name).toBe('mx2')
    // It may have gone out: an operator is asked.
    expect(sentOf([a, b, c])).toEqual([`${id} 0`])
    expect(b.held.heldOne(id).row.recipients).toHaveLength(1)
  })

  test('leaves its doubt to every next owner, until it is back itself', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(2, 'x', [b, c])
    wires.exchange()
    a.queue = 'takesLast'
    void a.held.release(RUIZ, id, 'r0@example.com')
    await settled()
    for (const one of [b, c]) one.queue = 'refuses'
    wires.confirm(a, 200_000)
    await passed(wires, 10_000)
    const [first, second] = b.held.heldOne(id).row.owner.name === 'mx2' ? [b, c] : [c, b]
    wires.confirm(first, 200_000)
    await passed(wires, 10_000)
    expect(second.held.heldOne(id).row.owner.name).toBe(second.node.name)
    expect(second.quarantine.doubted(id, [0, 1])).toEqual([0])
    // Of two doubts no single word is the end.
    expect(second.quarantine.doubtOf(id)).toBeNull()
    second.queue = 'takes'
    await passed(wires, 2 * MINUTE_MS, 5_000)
    expect(second.sent).toEqual([`${id} 0`])
    expect(second.observer.count('possible_duplicates_total')).toBe(1)
  })

  test('had taken the mail over in doubt itself: that does not end with it', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(2, 'x', [b, c])
    wires.exchange()
    wires.cut.add('mx1')
    wires.isLongCut = true
    await b.held.release(NAGY, id, 'r0@example.com', true)
    const [first, second] = b.held.heldOne(id).row.owner.name === 'mx2' ? [b, c] : [c, b]
    wires.exchange()
    wires.confirm(first, 200_000)
    await passed(wires, 10_000)
    expect(second.held.heldOne(id).row.owner.name).toBe(second.node.name)
    await second.held.release(NAGY, id)
    expect(second.sent).toEqual([`${id} 1`])
    expect(second.observer.count('possible_duplicates_total')).toBe(1)
  })
})

describe('an owner that is silent', () => {
  test('is not followed, however long; the click waits, is shown, and holds back the expiry', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.cut.add('mx1')
    await passed(wires, 40 * MINUTE_MS, 30_000)
    expect(b.held.heldOne(id).row.owner.name).toBe('mx1')
    const detail = await b.held.release(NAGY, id)
    expect(detail.row.pending).toMatchObject([{ to: a.node, by: 'nagy' }])
    expect(detail.waits?.words).toBe('waits for mx1')
    expect(b.quarantine.waiting()).toBe(1)
    expect(b.quarantine.expired(b.clock.wallMs() + 40 * DAY_MS, 10)).toEqual([])
    expect(sentOf([a, b])).toEqual([])
  })

  test('gives way to "release anyway", which is counted', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.cut.add('mx1')
    wires.isLongCut = true
    await c.held.release(NAGY, id, undefined, true)
    expect(b.sent).toEqual([`${id} 0`])
    expect(b.observer.count('possible_duplicates_total')).toBe(1)
  })

  test('to one node only is no reason to take its mail from it, whatever is asked', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    const ask = { id, recipient: null, kind: 'release', by: 'nagy', anyway: true }
    const answer = await b.decisions.answerDecide({ asks: [ask] })
    expect(answer.value).toMatchObject({ answers: [{ refusal: { code: 'unavailable' } }] })
    expect(b.held.heldOne(id).row.owner.name).toBe('mx1')
    expect(sentOf([a, b])).toEqual([])
  })

  test('and removed: a holder has all of its mail, waiting clicks are a question', async () => {
    const { wires, a, b, c } = three()
    const asked = await a.hold(1, 'x', [b])
    const other = await a.hold(1, 'x', [b])
    wires.exchange()
    a.isDown = true
    await c.held.release(NAGY, asked)
    wires.remove(a)
    await passed(wires, 10_000)
    for (const id of [asked, other]) expect(c.held.heldOne(id).row.owner.name).toBe('mx2')
    expect(sentOf([a, b, c])).toEqual([])
    expect(c.held.heldOne(asked).row.pending).toMatchObject([{ to: a.node }])
    expect(b.quarantine.expired(b.clock.wallMs() + 40 * DAY_MS, 10)).toEqual([other])
    await c.held.release(NAGY, asked)
    expect(b.sent).toEqual([`${asked} 0`])
    // "mx1 is gone" is the word of an operator: it may have been released there.
    expect(b.observer.count('possible_duplicates_total')).toBe(1)
    await passed(wires, 10_000)
    expect(c.held.heldOne(asked).row.pending).toEqual([])
  })
})

describe('an owner that comes back', () => {
  /** mx1 is cut off, and mx2 has taken its mail over on the word of an operator. */
  async function apart(kind: 'release' | 'none') {
    const world = three()
    const { wires, a, b } = world
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.cut.add('mx1')
    wires.isLongCut = true
    if (kind === 'release') await b.held.release(NAGY, id, undefined, true)
    return { ...world, id }
  }

  test('yields to the next one, and sends nothing that it had not', async () => {
    const { wires, a, b, id } = await apart('release')
    wires.cut.clear()
    await passed(wires, 15_000)
    expect(a.held.heldOne(id).row.owner.name).toBe('mx2')
    expect((await refusal(() => a.held.release(RUIZ, id))).message).toContain('released by nagy')
    expect(sentOf([a, b])).toEqual([`${id} 0`])
    expect(namesOf(b, id)).toContain('mx1')
  })

  test('ends the doubt: what is released after that is counted no more', async () => {
    const { wires, a, b } = three()
    const id = await a.hold(3, 'x', [b])
    wires.exchange()
    wires.cut.add('mx1')
    wires.isLongCut = true
    const [first = '', second = '', third = ''] = a.held.heldOne(id).row.recipients
    await b.held.release(NAGY, id, first, true)
    await b.held.release(NAGY, id, second)
    expect(b.quarantine.one(id)?.doubtMs).not.toBeNull()
    expect(b.observer.count('possible_duplicates_total')).toBe(2)
    wires.cut.clear()
    await passed(wires, 30_000)
    expect(b.quarantine.one(id)?.doubtMs).toBeNull()
    b.trace.flush()
    const ends = b.trace.message(id).events.filter(({ detail }) => detail.includes('no more'))
    expect(ends).toHaveLength(1)
    await b.held.release(NAGY, id, third)
    expect(b.observer.count('possible_duplicates_total')).toBe(2)
    expect(sentOf([a, b])).toEqual([`${id} 0`, `${id} 1`, `${id} 2`])
  })

  test('after both have released: that is two, told and counted once', async () => {
    const { wires, a, b, id } = await apart('release')
    await a.held.release(RUIZ, id)
    expect(sentOf([a, b])).toHaveLength(2)
    wires.cut.clear()
    await passed(wires, 15_000)
    expect(sentOf([a, b])).toHaveLength(2)
    expect(b.observer.count('possible_duplicates_total')).toBe(1)
    expect(a.observer.count('held_yielded_total')).toBe(1)
    expect(a.shown()).toBe(b.shown())
  })

  test('after both have released, as another one knows too: that is told and counted once', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    wires.isLongCut = true
    wires.cut.add('mx2')
    await a.held.release(RUIZ, id)
    wires.exchange()
    wires.cut.clear()
    wires.cut.add('mx1')
    c.isDown = true
    await b.held.release(NAGY, id, undefined, true)
    expect(sentOf([a, b])).toHaveLength(2)
    const told = () =>
      b.trace
        .message(id)
        .events.filter(({ detail }) => detail.startsWith('a former owner had sent'))
    const counted = () => b.observer.count('possible_duplicates_total')
    expect([told().length, counted()]).toEqual([0, 1])
    c.isDown = false
    await passed(wires, 15_000)
    expect([told().length, counted()]).toEqual([1, 1])
    wires.cut.clear()
    await passed(wires, 15_000)
    expect([told().length, counted()]).toEqual([1, 1])
  })

  test('with a release of its own counts before a deletion of the next one', async () => {
    const { wires, a, b, id } = await apart('none')
    // Taken over for another recipient's sake, then deleted.
    b.quarantine.takeOver(id, { hasBody: true, doubt: { sinceMs: 1, places: null } })
    b.holders.share.owned(id)
    await b.held.deleteHeld(NAGY, id)
    a.queue = 'hangs'
    void a.held.release(RUIZ, id).catch(() => {})
    await settled()
    wires.cut.clear()
    await passed(wires, 15_000)
    expect(b.held.heldOne(id).claims).toMatchObject([{ kind: 'release', by: 'ruiz' }])
    expect(b.sent).toEqual([`${id} 0`])
  })

  test('that has sent already tells the next one, which sends nothing', async () => {
    const { wires, a, b, id } = await apart('none')
    await a.held.release(RUIZ, id)
    expect(a.sent).toHaveLength(1)
    b.quarantine.takeOver(id, { hasBody: true, doubt: { sinceMs: 1, places: null } })
    b.holders.share.owned(id)
    wires.cut.clear()
    await passed(wires, 15_000)
    expect(b.held.heldOne(id)).toMatchObject({ claims: [{ kind: 'release', by: 'ruiz' }] })
    expect(sentOf([a, b])).toEqual([`${id} 0`])
    expect(b.quarantine.pendingReleases()).toEqual([])
  })

  test('while its release waits for acknowledgements leaves it to the next one', async () => {
    const { wires, a, b, id } = await apart('none')
    wires.isLongCut = false
    const late = refusal(() => a.held.release(RUIZ, id))
    await settled()
    b.quarantine.takeOver(id, { hasBody: true, doubt: { sinceMs: 1, places: null } })
    b.holders.share.owned(id)
    wires.cut.clear()
    wires.exchange()
    await passed(wires, MINUTE_MS)
    expect((await late).message).toContain('mx2 has taken this mail over meanwhile')
    await passed(wires, 10_000)
    expect(a.sent).toEqual([])
    expect(b.sent).toEqual([`${id} 0`])
  })
})

describe('a node that leaves', () => {
  test('hands its held mail to who has it, without a doubt', async () => {
    const { wires, a, b, c } = three()
    const ids: MessageId[] = []
    for (let count = 0; count < 12; count++)
      ids.push(await a.hold(1, 'x', [count % 2 === 0 ? b : c]))
    wires.exchange()
    expect(a.holders.takeover.heldToMove()).toBe(12)
    await a.holders.takeover.moveHeld()
    wires.exchange()
    await settled()
    expect(a.holders.takeover.heldToMove()).toBe(0)
    expect(ids.map((id) => a.held.heldOne(id).row.owner.name)).toEqual(
      ids.map((_, count) => (count % 2 === 0 ? 'mx2' : 'mx3')),
    )
    wires.remove(a, 'left')
    for (const id of ids) await c.held.release(NAGY, id)
    expect(sentOf([a, b, c])).toEqual(ids.map((id) => `${id} 0`).sort())
    for (const one of [a, b, c]) expect(one.observer.count('possible_duplicates_total')).toBe(0)
  })

  test('waits until what it holds for others has another holder', async () => {
    const { wires, a, b, c } = three()
    const id = await a.hold(1, 'x', [b])
    wires.exchange()
    expect(b.holders.takeover.heldToMove()).toBe(1)
    expect(c.holders.takeover.heldToMove()).toBe(0)
    // Who leaves is no holder to count on.
    wires.leaving.add(b.node.id)
    await passed(wires, 20_000)
    expect(namesOf(a, id)).toContain('mx3')
    expect(b.holders.takeover.heldToMove()).toBe(0)
  })

  test('keeps what nobody else has, and what changed while it was asked', async () => {
    const { wires, a, b } = two()
    const alone = await a.hold(1)
    const changed = await a.hold(2, 'x', [b])
    wires.exchange()
    // Not yet told to the other one.
    void a.held.deleteHeld(RUIZ, changed, 'r0@example.com')
    await a.holders.takeover.moveHeld()
    expect(b.quarantine.one(changed)?.term).toBe(1)
    expect(a.holders.takeover.heldToMove()).toBe(2)
    wires.exchange()
    await a.holders.takeover.moveHeld()
    wires.exchange()
    expect(a.holders.takeover.heldToMove()).toBe(1)
    expect(b.held.heldOne(changed).claims).toHaveLength(1)
    expect(a.held.heldOne(alone).row.owner.name).toBe('mx1')
    // It gets a second holder in time, and goes then.
    await passed(wires, 20_000)
    await a.holders.takeover.moveHeld()
    wires.exchange()
    expect(a.holders.takeover.heldToMove()).toBe(0)
  })
})
