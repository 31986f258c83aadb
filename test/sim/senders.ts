/**
 * Clients of a simulated cluster: each has one mail, gives it to a node, and tries again, the same
 * mail at any node, unless it has read 250.
 */
import { StoreError } from '../../src/base/errors.ts'
import type { MessageId } from '../../src/base/ids.ts'
import { PIECE_BYTES } from '../../src/base/limits.ts'
import type { Envelope } from '../../src/message/envelope.ts'
import type { Reply } from '../../src/message/reply.ts'
import type { Dice } from './dice.ts'
import { DOMAIN, type Ledger, type Mail, type Submission } from './ledger.ts'
import { HELD_MARK, type SimMail } from './mail.ts'
import type { SimNode } from './node.ts'
import type { SimProcess, World } from './world.ts'

export type SenderRates = {
  /** Mean time between two mails, ms. */
  readonly everyMs: number
  /** Parts of the mails, 0..1. */
  readonly large: number
  readonly refused: number
  readonly held: number
  /** Of the answers, 0..1: the connection is lost before the sender reads it. */
  readonly lostReplies: number
}

export const CALM_SENDERS: SenderRates = {
  everyMs: 1_000,
  large: 0,
  refused: 0,
  held: 0,
  lostReplies: 0,
}

/** Between two attempts of a sender. */
const AGAIN_MS = 15_000
/** A sender waits so long for the answer to its dot (RFC 5321, 4.5.3.2.6 asks for 10 min). */
const PATIENCE_MS = 60_000
const WIRE_MS = 3

export type SenderDeps = {
  readonly world: World
  readonly ledger: Ledger
  /** Nodes that let clients in, now. */
  readonly doors: () => readonly SimNode[]
  /** Disks that have this message whole. */
  readonly copiesOf: (mid: MessageId) => number
}

/** The attempt has ended; false: it had before. */
type Over = (isDone: boolean) => boolean

export class Senders {
  readonly #deps: SenderDeps
  readonly #dice: Dice
  readonly rates: SenderRates
  #count = 0
  #isOver = false
  /** Mails whose sender goes on trying. */
  open = 0

  constructor(dice: Dice, rates: SenderRates, deps: SenderDeps) {
    this.#dice = dice
    this.rates = rates
    this.#deps = deps
  }

  begin(): void {
    this.#deps.world.after(this.#dice.exponential(this.rates.everyMs), () => {
      if (this.#isOver) return
      this.send()
      this.begin()
    })
  }

  end(): void {
    this.#isOver = true
  }

  /** One mail more; it goes to `first` at the first attempt. */
  send(first?: SimNode, given: Partial<{ bytes: number; recipients: number }> = {}): Mail {
    const mail = this.#compose(given)
    this.open += 1
    this.#attempt(mail, first ?? null)
    return mail
  }

  #compose(given: Partial<{ bytes: number; recipients: number }>): Mail {
    const dice = this.#dice
    const { large, refused, held } = this.rates
    this.#count += 1
    const token = `t${this.#count}`
    const isHeld = dice.chance(held)
    const count = given.recipients ?? dice.pick([1, 1, 1, 2, 3])
    const recipients = Array.from({ length: count }, (_, place) => {
      const taste = !isHeld && dice.chance(refused) ? 'refuses' : 'takes'
      const address = `r${place}.${token}${taste === 'takes' ? '' : '.x'}@${DOMAIN}`
      return { address, taste } as const
    })
    const sender = `s.${token}@${DOMAIN}`
    const bytes = given.bytes ?? (dice.chance(large) ? 70_000 + dice.below(150_000) : 400)
    const head = [
      `From: <${sender}>`,
      `Subject: ${token}`,
      `X-Token: ${token}`,
      ...(isHeld ? [HELD_MARK] : []),
      '',
      `${token} `.repeat(Math.ceil(bytes / (token.length + 1))),
      '',
    ]
    const body = Buffer.from(head.join('\r\n'))
    return { token, sender, recipients, body, isHeld, submissions: [], acked: null }
  }

  #attempt(mail: Mail, first: SimNode | null): void {
    const doors = this.#deps.doors()
    const node = first?.run?.mail?.isOpen === true ? first : doors[this.#dice.below(doors.length)]
    const mails = node?.run?.mail ?? null
    if (node === undefined || mails === null) return this.#again(mail)
    let isOver = false
    mails.sessions += 1
    const over: Over = (isDone) => {
      if (isOver) return false
      isOver = true
      mails.sessions -= 1
      if (isDone) this.open -= 1
      else this.#again(mail)
      return true
    }
    this.#deps.world.after(PATIENCE_MS, () => over(false))
    this.#give(mail, node, mails, over)
  }

  #again(mail: Mail): void {
    const ms = this.#dice.between(AGAIN_MS / 3, AGAIN_MS)
    this.#deps.world.after(ms, () => this.#attempt(mail, null))
  }

  /** Piece by piece over the wire; whatever happens to the process, the sender sees it end. */
  #give(mail: Mail, node: SimNode, mails: SimMail, over: Over): void {
    const { world, ledger } = this.#deps
    const { process, clock } = node.run ?? {}
    const { receiver } = mails.pipeline
    const refusal = receiver.refusal(mail.body.length)
    const id = mails.ids.next()
    const incoming = refusal ?? receiver.begin(id, mail.body.length)
    if (process === undefined || clock === undefined || 'code' in incoming) {
      if ('code' in incoming && incoming.code >= 500) {
        world.violate(`${incoming.code} at the door of ${node.name}`)
      }
      return void world.after(WIRE_MS, () => over(false))
    }
    const submission = ledger.submitted(mail, id, node.id)
    world.tell(() => `${mail.token} goes to ${node.name} as ${id}`)
    let offset = 0
    const next = (): void => {
      if (mail.body.length - offset > PIECE_BYTES) {
        const block = incoming.block()
        mail.body.copy(block, 0, offset, offset + PIECE_BYTES)
        offset += PIECE_BYTES
        const mayGoOn = attempt(() => incoming.piece(block))
        // The spool failed: the client reads 451, or that the connection has ended.
        if (mayGoOn === null) over(false)
        else if (mayGoOn) world.after(WIRE_MS, next, process)
        else incoming.onDrained(() => world.after(WIRE_MS, next, process))
        return
      }
      const last = Buffer.from(mail.body.subarray(offset))
      const isWhole = offset === 0
      const envelope = envelopeOf(mail, id, clock.wallMs())
      const { length: sizeBytes } = mail.body
      incoming
        .end({ id, envelope, last, isWhole, sizeBytes, snapshot: mails.live.current })
        .then((reply) => this.#answered(submission, node, process, reply, over))
    }
    world.after(WIRE_MS, next, process)
    this.#watch(process, over)
  }

  /** The kernel of a node that ended closes the connection. */
  #watch(process: SimProcess, over: Over): void {
    for (let ms = 500; ms < PATIENCE_MS; ms *= 2) {
      this.#deps.world.after(ms, () => {
        if (!process.isAlive) over(false)
      })
    }
  }

  #answered(
    submission: Submission,
    node: SimNode,
    process: SimProcess,
    reply: Reply,
    over: Over,
  ): void {
    const { world, ledger } = this.#deps
    const { mail, mid } = submission
    ledger.answered(submission, reply.code, this.#deps.copiesOf(mid))
    world.tell(() => `${node.name} answers ${reply.code} to ${mail.token} (${mid})`)
    const isLost = this.#dice.chance(this.rates.lostReplies)
    world.after(WIRE_MS, () => {
      if (isLost || !process.isAlive) {
        if (reply.code === 250) world.sometimes('250 lost')
        over(false)
        return
      }
      if (reply.code >= 500) world.violate(`${node.name} answers ${reply.code} to ${mail.token}`)
      if (reply.code !== 250) {
        over(false)
        return
      }
      // A sender who has hung up reads nothing more.
      if (over(true)) ledger.acknowledged(submission)
    })
  }
}

/** Null: the disk refused. */
function attempt<Result>(act: () => Result): Result | null {
  try {
    return act()
  } catch (error) {
    if (error instanceof StoreError) return null
    throw error
  }
}

function envelopeOf(mail: Mail, id: MessageId, receivedMs: number): Envelope {
  return {
    id,
    receivedMs,
    clientIp: '198.51.100.7',
    greeting: 'sender.example',
    protocol: 'ESMTP',
    tls: null,
    outbound: false,
    sender: mail.sender,
    eightBit: false,
    smtpUtf8: false,
    ret: null,
    envid: null,
    recipients: mail.recipients.map(({ address }) => ({ address, notify: null, orcpt: null })),
  }
}
