/**
 * What was promised to clients and what arrived, known without looking at how the product does it:
 * every mail has a token in its recipients, its header and its body. The questions of the ledger:
 * lost, phantom, unscanned, corrupt, and for each duplicate its cause (faults.md section 4).
 */
import type { MessageId, NodeId } from '../../src/base/ids.ts'
import type { Resolution } from '../../src/cluster/doubts.ts'
import type { World } from './world.ts'

export const DOMAIN = 'example.com'

/** What the next hop says about a recipient, always the same. */
export type Taste = 'takes' | 'refuses'

/** A mail as its sender has it. */
export type Mail = {
  readonly token: string
  readonly sender: string
  readonly recipients: readonly { readonly address: string; readonly taste: Taste }[]
  readonly body: Buffer
  /** The inspectors find something: it is held. */
  readonly isHeld: boolean
  readonly submissions: Submission[]
  /** The sender read 250, and will not try again. */
  acked: Submission | null
}

/** One attempt of a sender. */
export type Submission = {
  readonly mail: Mail
  readonly mid: MessageId
  readonly node: NodeId
  readonly atMs: number
  /** What the node said, and whether the sender read it. */
  answer: number | null
  answeredMs: number
  isRead: boolean
  /** Since when a notification about it was on one disk only, as it was said to be safe. */
  noticeAloneMs: number | null
  /** Nodes whose disks had it when the node said 250. */
  copies: number
}

/** Why a recipient may get a mail again (design: mail.md, The failure matrix). */
export type Cause =
  /** Another submission of a sender who had not read 250. */
  | 'lost 250'
  /** A dot went out and no answer was written down. */
  | 'in doubt'
  /** Its marks had not reached the node that took over. */
  | 'unsent marks'
  /** A disk went back in time, with the marks of what was done since. */
  | 'rolled back'
  /** A claim was decided apart and a person said that it may be. */
  | 'release anyway'

/** A mail at the door of a next hop. */
export type Arrived = {
  readonly mid: MessageId
  /** Index in the envelope of the message. */
  readonly index: number
  /** The disk of its node had it as done when the dot went out. */
  readonly isKnown: boolean
  readonly address: string
  readonly sender: string
  readonly body: Buffer
  readonly node: NodeId
  readonly nodeName: string
}

export type Delivery = {
  readonly mid: MessageId
  readonly index: number
  readonly node: NodeId
  readonly atMs: number
}

/** What the ledger asks of the simulation. */
export type Witnesses = {
  /** The disk of the node has this message whole, with its COMMIT. */
  readonly hasCommit: (node: NodeId, mid: MessageId) => boolean
  readonly hasTry: (node: NodeId, mid: MessageId) => boolean
  /** The disk of the node has a mark that says that this recipient is done. */
  readonly hasDone: (node: NodeId, mid: MessageId, index: number) => boolean
  /** Disks that have a message whole. */
  readonly copiesOf: (mid: MessageId) => number
  /** Two nodes have been in contact without a break for so long, ms. */
  readonly contactMs: (one: NodeId, two: NodeId) => number
  /** The disk of the node went back to an image of before, at any time. */
  readonly hasGoneBack: (node: NodeId) => boolean
  /** The disk of the node lost something, at any time. */
  readonly hasLost: (node: NodeId) => boolean
  /** Some disk went back from after `atMs` to before it. */
  readonly wentBackPast: (atMs: number) => boolean
  /** So often a disk was lost or went back: what only it had is not held against the product. */
  readonly lossesSince: (atMs: number) => number
}

/** Two nodes in contact for so long know each other's marks. */
const CONTACT_MS = 5_000

export type Sums = {
  accepted: number
  delivered: number
  bounced: number
  held: number
  /** Of those with one copy only. */
  lostAlone: number
  alone: number
  readonly duplicates: Map<Cause, number>
}

export class Ledger {
  readonly mails = new Map<string, Mail>()
  readonly sums: Sums = {
    accepted: 0,
    delivered: 0,
    bounced: 0,
    held: 0,
    lostAlone: 0,
    alone: 0,
    duplicates: new Map(),
  }
  readonly #world: World
  readonly #ask: Witnesses
  readonly #byMid = new Map<MessageId, Submission>()
  readonly #inspected = new Set<MessageId>()
  readonly #deliveries = new Map<string, Delivery[]>()
  /** Notifications that a recipient will not get it, by `token index`. */
  readonly #notices = new Map<string, number>()
  /** Possible duplicates that the product has counted, by `mid index`. */
  readonly #doubts = new Map<string, number>()

  /** The same of held mail that was released, by message. */
  readonly heldDoubts = new Map<MessageId, number>()

  /** Called with each held mail that has expired at its owner. */
  onExpired: ((mid: MessageId) => void) | null = null

  /** Called with each mail that reaches a next hop. */
  onArrived: ((arrived: Arrived) => void) | null = null

  constructor(world: World, ask: Witnesses) {
    this.#world = world
    this.#ask = ask
  }

  submitted(mail: Mail, mid: MessageId, node: NodeId): Submission {
    const { nowMs } = this.#world
    const submission: Submission = {
      mail,
      mid,
      node,
      atMs: nowMs,
      answer: null,
      answeredMs: nowMs,
      isRead: false,
      noticeAloneMs: null,
      copies: 0,
    }
    this.mails.set(mail.token, mail)
    mail.submissions.push(submission)
    this.#byMid.set(mid, submission)
    return submission
  }

  /** The node says `code`; `copies`: the disks that have it whole at this moment. */
  answered(submission: Submission, code: number, copies: number): void {
    submission.answer = code
    submission.answeredMs = this.#world.nowMs
    submission.copies = copies
    if (code === 250 && copies === 0) {
      this.#world.violate(`250 for ${submission.mid}, which is on no disk`)
    }
  }

  /** The sender reads 250: from here on the mail is ours. */
  acknowledged(submission: Submission): void {
    const { mail } = submission
    submission.isRead = true
    mail.acked ??= submission
    this.sums.accepted += 1
    if (submission.copies < 2) this.sums.alone += 1
  }

  /** The product has made a notification about a message. */
  bounced(mid: MessageId, notification: MessageId): void {
    const submission = this.#byMid.get(mid)
    if (submission === undefined || this.#ask.copiesOf(notification) > 1) return
    submission.noticeAloneMs ??= this.#world.nowMs
  }

  inspected(mid: MessageId): void {
    this.#inspected.add(mid)
  }

  isInspected(mail: Mail): boolean {
    return mail.submissions.some(({ mid }) => this.#inspected.has(mid))
  }

  /** The product counts a delivery as one that may be the second. */
  doubted(mid: MessageId, index: number): void {
    const key = `${mid} ${index}`
    this.#doubts.set(key, (this.#doubts.get(key) ?? 0) + 1)
  }

  /** The product counts so many releases of a held mail as ones that may be the second. */
  heldDoubted(mid: MessageId, recipients: number): void {
    this.heldDoubts.set(mid, (this.heldDoubts.get(mid) ?? 0) + recipients)
  }

  /** The product says what became of a possible duplicate: as the next hop has seen it. */
  resolved(mid: MessageId, index: number, how: Resolution): void {
    const { mail } = this.#byMid.get(mid) ?? {}
    if (mail === undefined) return
    const all = mail.recipients.flatMap((_, place) => this.deliveries(mail, place))
    const times = all.filter((one) => one.mid === mid && one.index === index).length
    const isSo = how === 'twice' ? times > 1 : times === (how === 'once' ? 1 : 0)
    this.#world.sometimes(`possible duplicate resolved: ${how}`)
    if (!isSo)
      this.#world.violate(`${mid} ${index} is said to be ${how}, and arrived ${times} times`)
  }

  submission(mid: MessageId): Submission | undefined {
    return this.#byMid.get(mid)
  }

  /**
   * A node puts the dot on the wire. What its disk loses or hears after that is no fault of this
   * attempt: gives whether it has a recipient as done now.
   */
  dotted(
    mid: MessageId,
    sender: string,
    { id, name }: { id: NodeId; name: string },
  ): (index: number) => boolean {
    if (sender === '') return () => false
    if (!this.#ask.hasCommit(id, mid)) {
      this.#world.violate(`unscanned: ${name} delivers ${mid} without its COMMIT`)
    }
    if (!this.#ask.hasTry(id, mid)) {
      this.#world.violate(`${name} sends the dot of ${mid} before its TRY is durable`)
    }
    const { length } = this.#byMid.get(mid)?.mail.recipients ?? []
    const places = Array.from({ length }, (_, index) => index)
    const done = new Set(places.filter((index) => this.#ask.hasDone(id, mid, index)))
    return (index) => done.has(index)
  }

  /** The next hop has the whole mail, and takes it. */
  arrived(arrived: Arrived): void {
    const { mid, address, nodeName } = arrived
    this.onArrived?.(arrived)
    const { violate } = this.#bound
    if (arrived.sender === '') return this.#notified(arrived)
    const [, place = '', token = ''] = /^r(\d+)\.(t\d+)/.exec(address) ?? []
    const mail = this.mails.get(token)
    const submission = this.#byMid.get(mid)
    if (mail === undefined || submission?.mail !== mail) {
      violate(`phantom: ${address} gets ${mid}, which nobody sent him`)
      return
    }
    if (!arrived.body.equals(mail.body)) violate(`corrupt: ${mid} reaches ${address} changed`)
    if (!this.#inspected.has(mid)) violate(`unscanned: ${nodeName} delivers ${mid}`)
    const key = `${token} ${place}`
    const before = this.#deliveries.get(key) ?? []
    const { nowMs: atMs } = this.#world
    const delivery = { mid, index: arrived.index, node: arrived.node, atMs }
    for (const earlier of before) this.#explain(key, earlier, delivery, arrived.isKnown)
    this.#deliveries.set(key, [...before, delivery])
  }

  readonly #bound = { violate: (rule: string): void => this.#world.violate(rule) }

  /** A node must not do again what it knows, or must know, to be done. */
  #explain(key: string, earlier: Delivery, now: Delivery, isKnown: boolean): void {
    if (earlier.mid !== now.mid || earlier.index !== now.index) return
    const { mid, index } = now
    // A copy is there again that all had forgotten when the mail was done: of plain mail nobody
    // remembers how it ended, and what is taken over is counted as a possible duplicate.
    const isBack = this.#ask.wentBackPast(earlier.atMs)
    if (!isBack && isKnown) {
      this.#world.violate(`${key}: delivered again by a node that has it as done`)
    }
    const isElsewhere = earlier.node !== now.node
    if (this.#ask.hasLost(earlier.node) || this.#ask.hasLost(now.node)) return
    if (isElsewhere && this.#ask.hasDone(earlier.node, mid, index)) {
      const contactMs = this.#ask.contactMs(earlier.node, now.node)
      if (contactMs > CONTACT_MS) {
        this.#world.violate(
          `${key}: delivered again ${Math.round(contactMs)} ms after the two nodes met`,
        )
      }
    }
  }

  #notified({ address, body, mid }: Arrived): void {
    const token = address.split('@')[0]?.split('.')[1] ?? ''
    const mail = this.mails.get(token)
    if (mail === undefined) {
      this.#world.violate(`phantom: ${address} gets the notification ${mid}`)
      return
    }
    const text = body.toString('latin1')
    for (const [place, { address: about, taste }] of mail.recipients.entries()) {
      if (!text.includes(about)) continue
      if (taste === 'takes') this.#world.violate(`a notification says that ${about} got nothing`)
      const key = `${token} ${place}`
      this.#notices.set(key, (this.#notices.get(key) ?? 0) + 1)
    }
  }

  deliveries(mail: Mail, place: number): readonly Delivery[] {
    return this.#deliveries.get(`${mail.token} ${place}`) ?? []
  }

  /** So many disks were lost since a mail was acknowledged that it may be gone. */
  #mayBeLost({ answeredMs, copies }: Submission): boolean {
    const losses = this.#ask.lossesSince(answeredMs)
    return losses > 0 && copies <= losses
  }

  /** Who may have got it is not said to have got nothing: the TRY names all, until the dot. */
  #isInDoubt({ submissions }: Mail, place: number): boolean {
    return submissions.some(({ mid }) => this.#doubts.has(`${mid} ${place}`))
  }

  #isNoticeLost({ noticeAloneMs }: Submission): boolean {
    return noticeAloneMs !== null && this.#ask.lossesSince(noticeAloneMs) > 0
  }

  /** Tokens and places that are promised and have come to nothing yet. */
  missing(isHeld: (mid: MessageId, place: number) => boolean, all = false): readonly string[] {
    return [...this.mails.values()].flatMap((mail) => {
      const { acked } = mail
      if (acked === null || (!all && this.#mayBeLost(acked))) return []
      return mail.recipients.flatMap(({ taste }, place) => {
        const key = `${mail.token} ${place}`
        if (taste === 'refuses' && !mail.isHeld) {
          const isGone = !all && (this.#isNoticeLost(acked) || this.#isInDoubt(mail, place))
          return this.#notices.has(key) || isGone ? [] : [key]
        }
        if (this.#deliveries.has(key)) return []
        return mail.submissions.some(({ mid }) => isHeld(mid, place)) ? [] : [key]
      })
    })
  }

  /** At rest: conservation, and a cause for each duplicate. */
  settle(isHeld: (mid: MessageId, place: number) => boolean): Sums {
    const lost = this.missing(isHeld)
    this.sums.lostAlone = this.missing(isHeld, true).length - lost.length
    for (const key of lost) {
      const acked = this.mails.get(key.split(' ')[0] ?? '')?.acked
      this.#world.violate(`lost: ${key} (${acked?.mid}), acknowledged with ${acked?.copies} copies`)
    }
    for (const mail of this.mails.values()) {
      for (const place of mail.recipients.keys()) this.#count(mail, place)
    }
    return this.sums
  }

  #count(mail: Mail, place: number): void {
    const key = `${mail.token} ${place}`
    const deliveries = this.#deliveries.get(key) ?? []
    if (this.#notices.has(key)) this.sums.bounced += 1
    if (deliveries.length === 0) return
    this.sums.delivered += 1
    const byMid = Map.groupBy(deliveries, ({ mid }) => mid)
    this.#charge('lost 250', byMid.size - 1)
    if (byMid.size > 1 && this.#readTwice(mail)) {
      this.#world.violate(`${key}: the sender tried again after he had read 250`)
    }
    for (const [mid, same] of byMid) {
      const [first, ...again] = same
      if (first === undefined || again.length === 0) continue
      const doubts = this.#doubts.get(`${mid} ${first.index}`) ?? 0
      const isRolledBack = same.some(({ node }) => this.#ask.hasGoneBack(node))
      if (isRolledBack) {
        this.#charge('rolled back', again.length)
        continue
      }
      if (doubts < again.length) {
        this.#world.violate(
          `${key}: ${mid} arrived ${same.length} times (${same.map(({ node, atMs }) => `${node.slice(0, 4)} at ${Math.round(atMs / 1000)} s`).join(', ')}), and ${doubts} were counted`,
        )
      }
      for (const [number, delivery] of again.entries()) {
        const isElsewhere = same[number]?.node !== delivery.node
        this.#charge(isElsewhere ? 'unsent marks' : 'in doubt', 1)
      }
    }
  }

  #readTwice(mail: Mail): boolean {
    return mail.submissions.filter(({ isRead }) => isRead).length > 1
  }

  #charge(cause: Cause, times: number): void {
    if (times === 0) return
    const { duplicates } = this.sums
    duplicates.set(cause, (duplicates.get(cause) ?? 0) + times)
  }
}
