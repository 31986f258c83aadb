/** Runs attempts: what is due, for each next hop no more at a time than it takes. */
import type { Clock } from '../../base/clock.ts'
import { messageOf, StoreError } from '../../base/errors.ts'
import type { NodeId } from '../../base/ids.ts'
import { letOldGo, shared } from '../../base/memory.ts'
import type { Observer } from '../../base/observe.ts'
import type { Random } from '../../base/random.ts'
import { ALONE, type Tally } from '../../base/tally.ts'
import type { LiveConfig } from '../../config/live.ts'
import type { Outcome } from '../../message/outcome.ts'
import { formatReply, type Reply, reply } from '../../message/reply.ts'
import type { NodeName, QueueRow } from '../../message/rows.ts'
import type { Tenure } from '../../store/copies.ts'
import type { Queue } from '../../store/queue.ts'
import { isFinal, type Message, type QueuedRecipient } from '../../store/queued.ts'
import { type Destination, nextOf, type Plan, pass, type Task, type Wait } from './destination.ts'
import { Hops } from './hops.ts'
import { isWaiting } from './page.ts'
import { longestDelayMs, nextDelayMs } from './schedule.ts'
import { Timetable } from './timetable.ts'

/** What became of a recipient: for the trace. */
export type Progress = 'delivered' | 'deferred' | 'bounced' | 'inDoubt' | 'dropped' | 'queued'

export type QueueWorkerDeps = {
  readonly queue: Queue
  readonly live: LiveConfig
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  /** The key of the next hop of a recipient; equal keys share connections and back-off. */
  readonly routeKey: (address: string) => string
  /** One attempt for recipients of one key; one outcome a recipient. Never rejects. */
  readonly attempt: (
    message: Message,
    indexes: readonly number[],
    dots: Dots,
  ) => Promise<readonly Outcome[]>
  /** Tells the sender, if it may be told; resolves when the DSN is as safe as the mail was. */
  readonly bounce: (
    message: Message,
    kind: 'failure' | 'delay' | 'success',
    about: readonly { readonly index: number; readonly reply: Reply }[],
  ) => Promise<void>
  readonly progress: (message: Message, index: number, what: Progress, detail: string) => void
  /** As lists show a node. */
  readonly nodeName: (node: NodeId) => NodeName
  /** Whether this node may act on a message now; null: always. */
  readonly tenure?: Tenure | null
  /** What the other nodes know of next hops; without it this one is alone. */
  readonly tally?: Tally
}

/** What is to be said and asked around a final dot; `places` are indexes of the attempt's. */
export type Dots = {
  /** Makes the TRY marks durable; no dot leaves when it rejects. */
  readonly beforeDot: () => Promise<void>
  /** These were refused before the dot, which is for others: nothing about them is in doubt. */
  readonly spared: (places: readonly number[]) => Promise<void>
  /** Asked right before each final dot. */
  readonly mayDot: () => boolean
}

/** A recipient, and the reply for good. */
type Failed = { readonly index: number; readonly reply: Reply }
/** A recipient that is tried again, and why. */
type Later = { readonly index: number; readonly outcome: Outcome & { kind: 'later' } }

const FORBIDDEN = 'another node may have taken the message over'

export class QueueWorker {
  readonly #deps: QueueWorkerDeps
  readonly #hops: Hops
  readonly #destinations = new Map<string, Destination>()
  readonly #plans = new Map<Message, Plan>()
  readonly #timetable: Timetable<Wait>
  #stopped = false
  #resting = false
  #running = 0
  #onIdle: (() => void) | null = null

  constructor(deps: QueueWorkerDeps) {
    this.#deps = deps
    const { clock, live, tally = ALONE } = deps
    this.#hops = new Hops({
      clock,
      tally,
      most: () => live.current.settings['deliver.connections'],
      freed: (key) => {
        const destination = this.#destinations.get(key)
        if (destination !== undefined) this.#fill(destination)
      },
    })
    this.#timetable = new Timetable(
      clock,
      (wait) => this.#due(wait),
      ({ plan }) => plan.message === null,
    )
    deps.tenure?.onFreed((messages) => this.replan(messages))
  }

  /** What was planned for these is void: they may go on, or are not this node's any more. */
  replan(messages: readonly Message[]): void {
    for (const message of messages) {
      if (this.#deps.queue.get(message.id) === message) this.add(message)
      else this.#unplan(message)
    }
  }

  /** Attempts under way. */
  get running(): number {
    return this.#running
  }

  /** Takes up everything the queue holds: once, at start. */
  resume(): void {
    this.takeUp(this.#deps.queue.messages(), 'The node stopped during the delivery.')
  }

  /** Messages of another node that are ours now, or our own after a start: what is in doubt waits. */
  takeUp(messages: Iterable<Message>, why = 'Another node was delivering it.'): void {
    const nowMs = this.#deps.clock.wallMs()
    const inDoubtMs = this.#deps.live.current.settings['queue.inDoubt'] * 1_000
    for (const message of messages) {
      for (const [index, recipient] of message.recipients.entries()) {
        if (recipient.state === 'inDoubt') {
          recipient.nextTryMs = nowMs + inDoubtMs
          this.#deps.progress(message, index, 'inDoubt', why)
        }
      }
      this.add(message)
    }
  }

  /** Plans all recipients of a message that wait for delivery; what was planned before is void. */
  add(message: Message): void {
    this.#unplan(message)
    const nowWall = this.#deps.clock.wallMs()
    const groups = new Map<number, { indexes: number[]; waitMs: number }>()
    for (const [index, recipient] of message.recipients.entries()) {
      if (!isPlannable(recipient.state)) continue
      const waitMs = this.#waitMs(recipient, nowWall)
      // Those that are due within the same second go on together.
      const second = Math.ceil(waitMs / 1_000)
      const group = groups.get(second)
      if (group === undefined) groups.set(second, { indexes: [index], waitMs })
      else {
        group.indexes.push(index)
        group.waitMs = Math.max(group.waitMs, waitMs)
      }
    }
    if (groups.size === 0) return
    const plan: Plan = { message, tasks: groups.size }
    this.#plans.set(message, plan)
    const nowMono = this.#deps.clock.monoMs()
    for (const { indexes, waitMs } of groups.values()) {
      const wait: Wait = { plan, indexes, dueMono: nowMono + waitMs }
      if (waitMs <= 0) this.#due(wait)
      else this.#timetable.add(wait)
    }
  }

  /** Recipients of one hop share an attempt. Only now: a message that waits is not read for it. */
  #due({ plan, indexes }: Wait): void {
    const { message } = plan
    if (message === null) return
    const { envelope } = message
    const hops = Map.groupBy(indexes, (index) =>
      this.#deps.routeKey(envelope.recipients[index]?.address ?? ''),
    )
    plan.tasks += hops.size - 1
    for (const [key, places] of hops) this.#makeReady({ plan, indexes: places, key })
  }

  /** No wait that the settings know is longer: else the clock was set back since it was planned. */
  #waitMs(recipient: QueuedRecipient, nowMs: number): number {
    if (recipient.state === 'queued') return 0
    const { settings } = this.#deps.live.current
    const longestMs = Math.max(
      longestDelayMs(settings['queue.longest'] * 1_000),
      settings['queue.inDoubt'] * 1_000,
    )
    recipient.nextTryMs = Math.min(recipient.nextTryMs, nowMs + longestMs)
    return Math.max(0, recipient.nextTryMs - nowMs)
  }

  /** Makes one message, or all, due now. Returns how many messages that concerns. */
  retry(matches: (message: Message) => boolean): number {
    let count = 0
    for (const message of this.#deps.queue.messages()) {
      const waits = message.recipients.some(
        ({ state }) => state === 'deferred' || state === 'inDoubt',
      )
      if (!waits || !matches(message)) continue
      count += 1
      const nowMs = this.#deps.clock.wallMs()
      for (const recipient of message.recipients) {
        if (recipient.state === 'deferred' || recipient.state === 'inDoubt')
          recipient.nextTryMs = nowMs
      }
      this.add(message)
    }
    // What was planned for them before.
    letOldGo(count, count)
    return count
  }

  /** Gives up on what is not being tried right now. True when something was dropped. */
  async drop(message: Message, bounce: boolean, why: Reply): Promise<boolean> {
    const indexes = [...message.recipients.keys()].filter((index) => {
      const state = message.recipients[index]?.state
      return isPlannable(state)
    })
    if (indexes.length === 0 || !this.#mayAct(message)) return false
    this.#unplan(message)
    for (const index of indexes) {
      const recipient = message.recipients[index]
      if (recipient !== undefined) recipient.state = 'trying'
    }
    if (bounce)
      await this.#deps.bounce(
        message,
        'failure',
        indexes.map((index) => ({ index, reply: why })),
      )
    this.#deps.queue.mark('fail', message, indexes, { reply: formatReply(why) })
    await this.#deps.queue.synced()
    for (const index of indexes) {
      const recipient = message.recipients[index]
      if (recipient !== undefined) recipient.state = 'dropped'
      this.#deps.progress(message, index, 'dropped', formatReply(why))
    }
    this.#deps.queue.settle(message)
    return true
  }

  /** While on, no attempt begins; those that run go on to their end. */
  rest(on: boolean): void {
    this.#resting = on
    if (!on) for (const destination of [...this.#destinations.values()]) this.#fill(destination)
  }

  /** Starts no further attempt; resolves when the running ones have ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timetable.stop()
    if (this.#running === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }

  /** Messages of which something waits for delivery, and when the oldest of them came. */
  totals(): {
    readonly messages: number
    readonly oldestMs: number | null
    readonly inDoubt: number
  } {
    let messages = 0
    let oldestMs: number | null = null
    let inDoubt = 0
    for (const message of this.#deps.queue.messages()) {
      if (!isWaiting(message)) continue
      const { recipients, receivedMs } = message
      messages += 1
      if (recipients.some(({ state }) => state === 'inDoubt')) inDoubt += 1
      if (oldestMs === null || receivedMs < oldestMs) oldestMs = receivedMs
    }
    return { messages, oldestMs, inDoubt }
  }

  /** The row of a waiting message; null when nothing of it waits for delivery. */
  row(message: Message): QueueRow | null {
    const waits = message.recipients.filter(({ state }) => !isFinal(state) && state !== 'held')
    if (waits.length === 0) return null
    const { envelope, commit } = message
    const has = (state: string): boolean => waits.some((recipient) => recipient.state === state)
    return {
      id: message.id,
      owner: this.#deps.nodeName(message.owner),
      term: message.term,
      holders: [...message.holders].map(([node, how]) => ({
        node: this.#deps.nodeName(node),
        state: how,
      })),
      waits: this.#deps.tenure?.why(message) ?? null,
      sender: envelope.sender,
      subject: commit.facts.subject,
      sizeBytes: commit.sizeBytes,
      acceptedMs: envelope.receivedMs,
      expiresMs: commit.expiresMs,
      state: has('inDoubt') ? 'inDoubt' : has('deferred') ? 'deferred' : 'queued',
      recipients: message.recipients.map((recipient, index) => ({
        address: envelope.recipients[index]?.address ?? '',
        state: recipient.state,
        attempts: recipient.attempts,
        nextTryMs:
          recipient.state === 'deferred' || recipient.state === 'inDoubt'
            ? recipient.nextTryMs
            : null,
        lastReply: recipient.lastReply,
      })),
    }
  }

  #unplan(message: Message): void {
    const plan = this.#plans.get(message)
    if (plan === undefined) return
    plan.message = null
    this.#plans.delete(message)
    this.#timetable.voided(plan.tasks)
  }

  #makeReady(task: Task): void {
    let destination = this.#destinations.get(task.key)
    if (destination === undefined) {
      destination = { key: task.key, ready: [], head: 0, active: 0 }
      this.#destinations.set(task.key, destination)
    }
    destination.ready.push(task)
    this.#fill(destination)
  }

  #fill(destination: Destination): void {
    const { key } = destination
    while (!this.#stopped && !this.#resting) {
      const task = nextOf(destination)
      const message = task?.plan.message ?? null
      if (task === null || message === null) {
        if (destination.active > 0) return
        this.#destinations.delete(key)
        this.#hops.forget(key)
        return
      }
      if (!this.#hops.mayBegin(key, destination.active)) return
      pass(destination)
      destination.active += 1
      this.#running += 1
      this.#hops.begun(key)
      this.#forget(task.plan)
      void this.#run(message, task.indexes, destination)
    }
  }

  /** One task to its end; it never rejects. */
  async #run(message: Message, places: readonly number[], destination: Destination): Promise<void> {
    const hadRested = message.isResting
    let reached: boolean | null = null
    try {
      reached = await this.#attempt(message, places)
    } catch (error) {
      // The spool cannot take a mark: this node stops delivering (design: mail.md, Queue).
      this.#stopped = true
      this.#timetable.stop()
      this.#deps.observer.emit('queue.tried', {
        message: message.id,
        outcome: 'failed',
        cause: messageOf(error),
      })
    } finally {
      destination.active -= 1
      this.#running -= 1
      this.#hops.ended(destination.key, reached)
      if (this.#running === 0) this.#onIdle?.()
      if (hadRested) letOldGo(1, places.length)
      this.#fill(destination)
    }
  }

  /** One task of it begins. */
  #forget(plan: Plan): void {
    plan.tasks -= 1
    if (plan.tasks === 0 && plan.message !== null) this.#plans.delete(plan.message)
  }

  /** True when the next hop answered for at least one recipient; null when it was not asked. */
  async #attempt(message: Message, places: readonly number[]): Promise<boolean | null> {
    const { queue } = this.#deps
    const indexes = places.filter((index) => {
      const state = message.recipients[index]?.state
      return isPlannable(state)
    })
    // Planned anew when it may.
    if (indexes.length === 0 || !this.#mayAct(message)) return null
    const before = new Map<number, QueuedRecipient['state']>()
    for (const index of indexes) {
      const recipient = message.recipients[index]
      if (recipient === undefined) continue
      before.set(index, recipient.state)
      recipient.state = 'trying'
      recipient.attempts += 1
    }
    let isForbidden = false
    const mayDot = (): boolean => {
      isForbidden ||= !this.#mayTry(message, indexes)
      return !isForbidden
    }
    const beforeDot = async (): Promise<void> => {
      if (!mayDot()) throw new StoreError(FORBIDDEN, { remedy: 'retry' })
      this.#countDoubtful(message, indexes)
      queue.mark('try', message, indexes)
      await queue.synced()
    }
    const spared = async (places: readonly number[]): Promise<void> => {
      const told = places.flatMap((place) => indexes[place] ?? [])
      if (this.#spare(message, before, told)) await queue.synced()
    }
    const dots: Dots = { beforeDot, spared, mayDot }
    const outcomes = await this.#deps.attempt(message, indexes, dots)
    const isNone = outcomes.every((outcome) => outcome.kind === 'later' && !outcome.dotSent)
    if (isForbidden && isNone) this.#undo(message, before)
    else await this.#conclude(message, before, outcomes)
    queue.settle(message)
    return isForbidden || outcomes.some(({ kind }) => kind !== 'later')
  }

  /**
   * The hop has refused them, so what the TRY said is not so: when this node ends before somebody is
   * told, their failure must still be. Who was in doubt before stays so. False: nothing to write.
   */
  #spare(
    message: Message,
    before: ReadonlyMap<number, QueuedRecipient['state']>,
    indexes: readonly number[],
  ): boolean {
    let isMarked = false
    for (const index of indexes) {
      const recipient = message.recipients[index]
      if (recipient?.state !== 'trying' || !message.tried.has(index)) continue
      if (before.get(index) === 'inDoubt') continue
      const { attempts, doubtful } = recipient
      const at = this.#deps.clock.wallMs()
      this.#deps.queue.mark('defer', message, [index], { at, attempts, doubt: doubtful })
      isMarked = true
    }
    return isMarked
  }

  #mayAct(message: Message): boolean {
    return this.#deps.tenure?.mayAct(message) ?? true
  }

  /** Somebody may have said meanwhile that a recipient has his mail. */
  #mayTry(message: Message, indexes: readonly number[]): boolean {
    return (
      this.#mayAct(message) &&
      indexes.every((index) => message.recipients[index]?.state === 'trying')
    )
  }

  /** No dot went out: the attempt is none. It is planned anew when it may act. */
  #undo(message: Message, before: ReadonlyMap<number, QueuedRecipient['state']>): void {
    for (const [index, state] of before) {
      const recipient = message.recipients[index]
      if (recipient === undefined || recipient.state !== 'trying') continue
      recipient.attempts -= 1
      recipient.state = state
      // What a TRY on the disk would say after a restart is not so.
      if (message.owner === this.#deps.queue.node) this.#markWaiting(message, index)
    }
    if (this.#mayAct(message)) this.add(message)
  }

  #markWaiting(message: Message, index: number): void {
    const recipient = message.recipients[index]
    if (recipient === undefined) return
    const { attempts, doubtful } = recipient
    const at = recipient.state === 'queued' ? this.#deps.clock.wallMs() : recipient.nextTryMs
    this.#deps.queue.mark('defer', message, [index], { at, attempts, doubt: doubtful })
    this.#markDoubt(message, index)
  }

  /** In doubt once is in doubt until it is final, also for who replays the marks. */
  #markDoubt(message: Message, index: number): void {
    if (message.recipients[index]?.state !== 'inDoubt') return
    this.#deps.queue.mark('try', message, [index])
  }

  #countDoubtful(message: Message, indexes: readonly number[]): void {
    for (const index of indexes) {
      if (message.recipients[index]?.doubtful !== true) continue
      this.#deps.observer.emit('queue.doubted', { message: message.id, recipient: index })
    }
  }

  async #conclude(
    message: Message,
    before: ReadonlyMap<number, QueuedRecipient['state']>,
    outcomes: readonly Outcome[],
  ): Promise<void> {
    const done: number[] = []
    const passed: { readonly index: number; readonly reply: Reply }[] = []
    const failed: Failed[] = []
    const later: Later[] = []
    const mayAct = this.#mayAct(message)
    const wasInDoubt = (index: number): boolean => before.get(index) === 'inDoubt'
    for (const [position, index] of [...before.keys()].entries()) {
      const outcome = outcomes[position]
      const recipient = message.recipients[index]
      if (outcome === undefined || recipient === undefined) continue
      this.#deps.observer.emit('queue.tried', {
        message: message.id,
        outcome: outcome.kind,
        host: outcome.host,
        reply: outcome.kind === 'later' ? outcome.cause : formatReply(outcome.reply),
      })
      // Somebody else knows its end already.
      if (recipient.state !== 'trying') continue
      if (outcome.kind !== 'delivered' && !mayAct) {
        this.#leave(message, index, outcome, wasInDoubt(index))
      } else if (outcome.kind === 'delivered') {
        recipient.lastReply = formatReply(outcome.reply)
        done.push(index)
        // A hop without DSN says nothing to the sender: then it is ours to say (RFC 3461, 5.2.2).
        const wanted = message.envelope.recipients[index]?.notify?.includes('SUCCESS') === true
        if (wanted && outcome.dsnPassedOn !== true) passed.push({ index, reply: outcome.reply })
      } else if (outcome.kind === 'never') failed.push({ index, reply: outcome.reply })
      else later.push({ index, outcome })
    }
    const refused = failed.map(({ index }) => index)
    this.#spare(message, before, refused)
    if (passed.length > 0) await this.#deps.bounce(message, 'success', passed)
    if (done.length > 0) this.#finish(message, done)
    failed.push(...this.#defer(message, later, wasInDoubt))
    if (failed.length > 0) await this.#fail(message, failed, wasInDoubt)
    if (later.some(({ index }) => isPlannable(message.recipients[index]?.state))) {
      this.add(message)
      await this.#warn(message)
    }
  }

  /** Another node may own it by now: nothing expires or bounces here until it may act again. */
  #leave(
    message: Message,
    index: number,
    outcome: Exclude<Outcome, { kind: 'delivered' }>,
    wasInDoubt: boolean,
  ): void {
    const recipient = message.recipients[index]
    if (recipient === undefined) return
    recipient.lastReply = shared(
      outcome.kind === 'later' ? outcome.cause : formatReply(outcome.reply),
    )
    recipient.state = wasInDoubt ? 'inDoubt' : 'deferred'
    recipient.doubtful ||= outcome.kind === 'later' && outcome.dotSent
    recipient.nextTryMs = this.#deps.clock.wallMs()
    if (message.owner === this.#deps.queue.node) this.#markWaiting(message, index)
  }

  /** DONE goes out with the next sync of anybody: a crash before it means one delivery in doubt. */
  #finish(message: Message, indexes: readonly number[]): void {
    const reply = message.recipients[indexes[0] ?? 0]?.lastReply ?? ''
    this.#deps.queue.mark('done', message, indexes, { reply })
    for (const index of indexes) {
      const recipient = message.recipients[index]
      if (recipient === undefined) continue
      recipient.state = 'done'
      this.#deps.progress(message, index, 'delivered', recipient.lastReply ?? '')
    }
  }

  /**
   * Plans the next attempt of all; gives those that have expired. Who was tried as often waits as
   * long, and so shares the next attempt too.
   */
  #defer(
    message: Message,
    later: readonly Later[],
    wasInDoubt: (index: number) => boolean,
  ): readonly Failed[] {
    const nowMs = this.#deps.clock.wallMs()
    const delays = new Map<number, number | null>()
    const expired: Failed[] = []
    const alike = new Map<string, number[]>()
    for (const { index, outcome } of later) {
      const recipient = message.recipients[index]
      if (recipient === undefined) continue
      const { attempts } = recipient
      let delayMs = delays.get(attempts)
      if (delayMs === undefined) {
        delayMs = this.#delayMs(message, attempts, nowMs)
        delays.set(attempts, delayMs)
      }
      recipient.lastReply = shared(outcome.cause)
      if (delayMs === null) {
        const text = `Delivery time expired: ${outcome.cause}`
        expired.push({ index, reply: reply(550, '5.4.7', text) })
        continue
      }
      recipient.state = wasInDoubt(index) ? 'inDoubt' : 'deferred'
      recipient.doubtful = recipient.doubtful || outcome.dotSent
      recipient.nextTryMs = nowMs + delayMs
      const name = `${attempts} ${recipient.doubtful} ${outcome.cause}`
      const indexes = alike.get(name)
      if (indexes === undefined) alike.set(name, [index])
      else indexes.push(index)
    }
    for (const indexes of alike.values()) this.#markDeferred(message, indexes)
    return expired
  }

  #delayMs(message: Message, attempts: number, nowMs: number): number | null {
    const { settings } = this.#deps.live.current
    return nextDelayMs(
      { attempts, ageMs: Math.max(0, nowMs - message.receivedMs) },
      {
        firstMs: settings['queue.first'] * 1_000,
        longestMs: settings['queue.longest'] * 1_000,
        expireMs: settings['queue.expire'] * 3_600_000,
      },
      this.#deps.random,
    )
  }

  /** One mark for recipients that stand alike. */
  #markDeferred(message: Message, indexes: readonly number[]): void {
    const [first] = indexes.flatMap((index) => message.recipients[index] ?? [])
    if (first === undefined) return
    const { nextTryMs, attempts, doubtful } = first
    const cause = first.lastReply ?? ''
    this.#deps.queue.mark('defer', message, indexes, {
      at: nextTryMs,
      attempts,
      reply: cause,
      doubt: doubtful,
    })
    for (const index of indexes) {
      this.#markDoubt(message, index)
      this.#deps.progress(message, index, 'deferred', cause)
    }
  }

  /** The DSN is safe before the FAIL mark: a crash between them bounces again, under the same id. */
  async #fail(
    message: Message,
    failed: readonly Failed[],
    wasInDoubt: (index: number) => boolean,
  ): Promise<void> {
    // It may have arrived when it was tried first: nobody is told that it failed.
    const told = failed.filter(({ index }) => !wasInDoubt(index))
    if (told.length > 0) await this.#deps.bounce(message, 'failure', told)
    for (const { index, reply: why } of failed) {
      const recipient = message.recipients[index]
      if (recipient === undefined) continue
      const text = formatReply(why)
      this.#deps.queue.mark('fail', message, [index], { reply: text })
      recipient.state = 'failed'
      recipient.lastReply = text
      this.#deps.progress(message, index, wasInDoubt(index) ? 'dropped' : 'bounced', text)
    }
  }

  /** Once, when the message has waited for `queue.warn` hours (RFC 3464 action `delayed`). */
  async #warn(message: Message): Promise<void> {
    const warnMs = this.#deps.live.current.settings['queue.warn'] * 3_600_000
    const ageMs = this.#deps.clock.wallMs() - message.receivedMs
    if (warnMs === 0 || ageMs < warnMs) return
    const late = [...message.recipients.entries()].filter(
      ([, recipient]) => recipient.state === 'deferred' && !recipient.warned,
    )
    if (late.length === 0) return
    for (const [, recipient] of late) recipient.warned = true
    await this.#deps.bounce(
      message,
      'delay',
      late.map(([index, { lastReply }]) => ({
        index,
        reply: reply(451, '4.4.7', lastReply ?? 'Not yet delivered'),
      })),
    )
    for (const [index, { nextTryMs, attempts }] of late) {
      this.#deps.queue.mark('defer', message, [index], { at: nextTryMs, attempts, warned: true })
    }
  }
}

/** It may be tried. */
function isPlannable(state: QueuedRecipient['state'] | undefined): boolean {
  return state === 'queued' || state === 'deferred' || state === 'inDoubt'
}
