/** The pool of inspector processes: hands out jobs, keeps their time, ends and replaces children. */
import { readFileSync } from 'node:fs'
import type { Clock, Timer } from '../../base/clock.ts'
import { assert, GatewayError, messageOf } from '../../base/errors.ts'
import { type DnsAnswers, keyOf, type Names } from '../../base/names.ts'
import type { Observer } from '../../base/observe.ts'
import { type Body, bodySize } from '../../message/body.ts'
import type { Sample } from '../../message/learned.ts'
import { type Inspection, NO_FACTS, NO_INSIGHT, NOTHING_ONWARD } from '../../message/verdict.ts'
import { type Answer, capScores, joinInsight, joinOnward, PARSE, type Seen } from './answers.ts'
import { Child } from './child.ts'
import type { InspectionJob, Inspectors, PoolHealth, Preview } from './contract.ts'
import type { Report } from './frames.ts'
import type { InspectConfig } from './look.ts'

export type InspectorOptions = {
  /** The argv of a child, e.g. `[process.execPath, 'inspector']`. */
  readonly command: readonly string[]
  /** Children, 1..64. */
  readonly processes: number
  /** The directory below which bodies lie; absolute. Children may read nothing else. */
  readonly spoolDir: string
  /** Further directories with bodies, absolute. */
  readonly readable?: readonly string[]
  /** Resident memory of a child beyond which it is ended. 256 MB by default. */
  readonly memoryBytesMax?: number
}

export type InspectorDeps = {
  readonly clock: Clock
  readonly observer: Observer
  /** Asked what inspectors want to know; without it they are unknown. */
  readonly names?: Names
}

const MEMORY_BYTES_MAX = 256 * 1024 * 1024
/** A body above this size may take three times its excess on top of the memory bound. */
const USUAL_BODY_BYTES = 50 * 1024 * 1024
/** Jobs in the pipe of one child, so that it never waits for the next one. */
const DEPTH_MAX = 4
/** Bytes of further jobs behind the first in one pipe. */
const DEPTH_BYTES_MAX = 512 * 1024
/** Jobs that wait for a child. Sessions are bounded below this. */
const WAITING_MAX = 20_000
/** While jobs run: how often memory and stalls are looked at. */
const WATCH_MS = 250
/** Silence after which children give memory back. */
const REST_MS = 2_000
/** A child that takes this long for one job gives back the jobs behind it. */
const STALL_MS = 250
/** A job that ended this many children is unknown. */
const STRIKES_MAX = 2
/** Looks at one message with new answers of the name servers: an SPF record may lead to ten others. */
const ROUNDS_MAX = 16
const HELLO_MS_MAX = 10_000
const BACKOFF_MS_FIRST = 100
const BACKOFF_MS_MAX = 10_000
const ALONE_MS_MAX = 10_000
/** Previews and samples at a time; each has a child of its own. */
const ALONE_MAX = 2
const ALONE_WAITING_MAX = 20
const CLOSE_MS_MAX = 1_000
/** Recipients that inspectors are told. */
const RECIPIENTS_MAX = 100

/** A message on its way to a child, or in one. */
type Job = {
  readonly id: number
  readonly what: InspectionJob
  readonly deadlineMs: number
  readonly answers: Map<string, Answer>
  readonly finish: (inspection: Inspection) => void
  timer: Timer | null
  strikes: number
  /** Of the name servers, so far. */
  known: DnsAnswers
  rounds: number
  seen: Seen
}

const NOTHING_SEEN: Seen = { facts: NO_FACTS, insight: NO_INSIGHT, onward: NOTHING_ONWARD }

type Place = {
  child: Child | null
  ready: boolean
  /** In the order of the pipe; the first one is under way. `null`: taken back or over. */
  readonly pipe: { readonly id: number; job: Job | null; readonly bytes: number }[]
  /** When the first of the pipe came to be first. */
  firstSinceMs: number
  failures: number
  missing: readonly string[]
  hello: Timer | null
  /** What its child was told last. */
  config: InspectConfig | null
}

export function createInspectors(options: InspectorOptions, deps: InspectorDeps): Inspectors {
  return new Pool(options, deps)
}

type EndCause = 'overrun' | 'memory' | 'crash' | 'protocol' | 'start'

class Pool implements Inspectors {
  readonly #options: InspectorOptions
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #places: Place[]
  readonly #waiting: Job[] = []
  readonly #names: Names | null
  /** Jobs that wait for the name servers. */
  readonly #asking = new Set<Job>()
  readonly #retries = new Set<Timer>()
  #watch: Timer | null = null
  #rest: Timer | null = null
  #nextId = 1
  #replaced = 0
  #alones = 0
  readonly #aloneWaiting: (() => void)[] = []
  #closed = false

  constructor(options: InspectorOptions, { clock, observer, names }: InspectorDeps) {
    assert(
      options.processes >= 1 && options.processes <= 64,
      'between 1 and 64 inspector processes',
    )
    assert(options.spoolDir.startsWith('/'), 'the spool directory is an absolute path')
    this.#options = options
    this.#clock = clock
    this.#observer = observer
    this.#names = names ?? null
    this.#places = Array.from({ length: options.processes }, () => ({
      child: null,
      ready: false,
      pipe: [],
      firstSinceMs: 0,
      failures: 0,
      missing: [],
      hello: null,
      config: null,
    }))
    for (const place of this.#places) this.#spawn(place)
  }

  inspect(what: InspectionJob): Promise<Inspection> {
    if (what.inspectors.length === 0)
      return Promise.resolve({ findings: [], unknowns: [], facts: NO_FACTS })
    return new Promise((finish) => {
      const job: Job = {
        id: this.#nextId,
        what,
        deadlineMs: this.#clock.monoMs() + what.budgetMs,
        answers: new Map(),
        finish,
        timer: null,
        strikes: 0,
        known: {},
        rounds: 0,
        seen: NOTHING_SEEN,
      }
      this.#nextId += 1
      if (this.#closed) this.#conclude(job, 'the inspectors are closed')
      else if (this.#waiting.length >= WAITING_MAX) this.#conclude(job, 'too many messages wait')
      else {
        job.timer = this.#clock.after(what.budgetMs, () => this.#overrun(job))
        this.#waiting.push(job)
        this.#dispatch()
      }
    })
  }

  health(): PoolHealth {
    return {
      processes: this.#places.length,
      ready: this.#places.filter((place) => place.ready).length,
      missing: [...new Set(this.#places.flatMap((place) => place.missing))].sort(),
      replaced: this.#replaced,
    }
  }

  async preview(body: Body): Promise<Preview> {
    const report = await this.#alone('preview', body)
    assert(report.kind === 'preview', 'a preview was asked for')
    return report.preview
  }

  async sample(body: Body): Promise<Sample> {
    const report = await this.#alone('sample', body)
    assert(report.kind === 'sample', 'a sample was asked for')
    return report.sample
  }

  /** One child an order: it pays for the parser, and no two mails ever meet in it. */
  async #alone(kind: 'preview' | 'sample', body: Body): Promise<Report> {
    // A page and its frame, and another operator: they wait for each other, within reason.
    if (this.#closed || this.#aloneWaiting.length >= ALONE_WAITING_MAX) {
      throw new GatewayError(`Too many ${kind}s are being made.`, { remedy: 'retry' })
    }
    if (this.#alones >= ALONE_MAX) {
      await new Promise<void>((resolve) => this.#aloneWaiting.push(resolve))
    } else this.#alones += 1
    let child: Child | null = null
    try {
      return await new Promise<Report>((resolve, reject) => {
        const fail = (cause: string): void =>
          reject(new GatewayError(`No ${kind}: ${cause}.`, { remedy: 'retry' }))
        const timer = this.#clock.after(ALONE_MS_MAX, () => fail('it took too long'))
        child = this.#open({
          report: (report) => {
            if (report.kind === 'hello')
              child?.send({ kind, job: 1, extents: extentsOf(body) }, inlineOf(body))
            else if (report.kind === kind) {
              timer.cancel()
              resolve(report)
            } else if (report.kind === 'failed') {
              timer.cancel()
              fail(report.cause)
            }
          },
          ended: () => {
            timer.cancel()
            fail('the process ended')
          },
        })
      })
    } catch (error) {
      if (error instanceof GatewayError) throw error
      throw new GatewayError(messageOf(error), { remedy: 'retry', cause: error })
    } finally {
      // The place goes to whoever waited longest, else it is free.
      const next = this.#aloneWaiting.shift()
      if (next === undefined) this.#alones -= 1
      else next()
      ;(child as Child | null)?.kill()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#watch?.cancel()
    this.#rest?.cancel()
    for (const timer of this.#retries) timer.cancel()
    const children = this.#places.flatMap((place) => place.child ?? [])
    for (const place of this.#places) {
      place.hello?.cancel()
      for (const entry of place.pipe)
        if (entry.job !== null) this.#conclude(entry.job, 'the inspectors are closed')
      place.pipe.length = 0
      place.ready = false
      place.child = null
    }
    for (const job of [...this.#waiting.splice(0), ...this.#asking])
      this.#conclude(job, 'the inspectors are closed')
    this.#asking.clear()
    for (const child of children) child.end()
    const timer = this.#clock.after(CLOSE_MS_MAX, () => {
      for (const child of children) child.kill()
    })
    await Promise.all(children.map((child) => child.exited))
    timer.cancel()
  }

  #open(listener: { report: (report: Report) => void; ended: (words?: string) => void }): Child {
    const { command, spoolDir, readable = [] } = this.#options
    const read = [spoolDir, ...readable].flatMap((directory) => ['--read', directory])
    return new Child([...command, ...read], listener)
  }

  #spawn(place: Place): void {
    if (this.#closed) return
    assert(place.child === null, 'a place has one child')
    try {
      const child = this.#open({
        report: (report) => {
          if (place.child === child) this.#heard(place, report)
        },
        ended: (words) => {
          if (place.child === child) this.#replace(place, place.ready ? 'crash' : 'start', words)
        },
      })
      place.child = child
      place.hello = this.#clock.after(HELLO_MS_MAX, () => this.#replace(place, 'start'))
    } catch (error) {
      // The binary is gone or the machine is out of processes.
      this.#replaced += 1
      this.#observer.emit('inspect.replaced', { why: 'start', detail: messageOf(error) })
      this.#spawnLater(place)
    }
  }

  /** Later and later, so that a broken binary does not keep a core busy. */
  #spawnLater(place: Place): void {
    place.failures += 1
    const delayMs = Math.min(
      BACKOFF_MS_MAX,
      BACKOFF_MS_FIRST * 2 ** Math.min(20, place.failures - 1),
    )
    const timer = this.#clock.after(delayMs, () => {
      this.#retries.delete(timer)
      this.#spawn(place)
    })
    this.#retries.add(timer)
  }

  #heard(place: Place, report: Report): void {
    switch (report.kind) {
      case 'hello':
        place.hello?.cancel()
        place.hello = null
        place.ready = true
        place.missing = report.missing
        this.#dispatch()
        return
      case 'answers':
        this.#answered(place, report)
        return
      case 'failed':
        if (report.job === 0) this.#replace(place, place.ready ? 'crash' : 'start', report.cause)
        else {
          const entry = this.#first(place, report.job)
          if (entry === null) return
          this.#advance(place)
          if (entry.job !== null) this.#conclude(entry.job, report.cause)
          this.#dispatch()
        }
        return
      case 'preview':
      case 'sample':
        this.#replace(place, 'protocol')
    }
  }

  #answered(place: Place, report: Extract<Report, { kind: 'answers' }>): void {
    const entry = this.#first(place, report.job)
    if (entry === null) return
    const { job } = entry
    if (job !== null) for (const answer of report.answers) job.answers.set(answer.inspector, answer)
    if (report.seen === null) return
    this.#advance(place)
    place.failures = 0
    if (job !== null) this.#looked(job, report.seen)
    this.#dispatch()
  }

  /** The job under way in this child; a report about any other is a broken child. */
  #first(place: Place, id: number): Place['pipe'][number] | null {
    const entry = place.pipe[0]
    if (entry !== undefined && entry.id === id) return entry
    this.#replace(place, 'protocol')
    return null
  }

  #advance(place: Place): void {
    place.pipe.shift()
    place.firstSinceMs = this.#clock.monoMs()
  }

  /** Gives waiting jobs to children, the emptiest first. */
  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const place = this.#freePlace()
      if (place === null) return
      const job = this.#waiting.shift()
      assert(job !== undefined, 'a job waits')
      this.#hand(place, job)
    }
  }

  #freePlace(): Place | null {
    let best: Place | null = null
    const nowMs = this.#clock.monoMs()
    for (const place of this.#places) {
      const { pipe } = place
      if (!place.ready || pipe.length >= DEPTH_MAX) continue
      if (pipe.length > 0) {
        if (nowMs - place.firstSinceMs > STALL_MS) continue
        if (pipe.reduce((sum, entry) => sum + entry.bytes, 0) > DEPTH_BYTES_MAX) continue
      }
      if (best === null || pipe.length < best.pipe.length) best = place
    }
    return best
  }

  #hand(place: Place, job: Job): void {
    const { envelope, body, inspectors } = job.what
    const missing = inspectors.filter((name) => !job.answers.has(name))
    if (place.config !== job.what.config) {
      place.config = job.what.config
      place.child?.send({ kind: 'config', config: job.what.config })
    }
    const id = this.#nextId
    this.#nextId += 1
    if (place.pipe.length === 0) place.firstSinceMs = this.#clock.monoMs()
    place.pipe.push({ id, job, bytes: bodySize(body) })
    place.child?.send(
      {
        kind: 'inspect',
        job: id,
        inspectors: missing,
        session: {
          clientIp: envelope.clientIp,
          clientName: job.what.clientName,
          greeting: envelope.greeting,
          sender: envelope.sender,
          recipients: envelope.recipients.slice(0, RECIPIENTS_MAX).map(({ address }) => address),
          outbound: envelope.outbound,
          smtpUtf8: envelope.smtpUtf8,
          receivedMs: envelope.receivedMs,
        },
        answers: job.known,
        extents: extentsOf(body),
      },
      inlineOf(body),
    )
    if (this.#watch === null) this.#watchLater()
  }

  /** The budget of a job is over: a child that is busy with it cannot be stopped but by killing. */
  #overrun(job: Job): void {
    const cause = `no answer in ${job.what.budgetMs} ms`
    const index = this.#waiting.indexOf(job)
    if (index !== -1) {
      this.#waiting.splice(index, 1)
      this.#conclude(job, cause)
      return
    }
    if (this.#asking.delete(job)) {
      this.#conclude(job, `no answer of the name servers in ${job.what.budgetMs} ms`)
      return
    }
    for (const place of this.#places) {
      const entry = place.pipe.find((each) => each.job === job)
      if (entry === undefined) continue
      entry.job = null
      const isFirst = place.pipe[0] === entry
      // One that waited for most of its time says nothing of the mail.
      const tookMs = this.#clock.monoMs() - place.firstSinceMs
      this.#conclude(job, cause, isFirst && tookMs * 2 > job.what.budgetMs)
      if (isFirst) this.#replace(place, 'overrun')
      return
    }
  }

  /** Ends a child and starts another. The job under way has a strike; those behind it move on. */
  #replace(place: Place, why: EndCause, detail?: string): void {
    const { child } = place
    if (this.#closed || child === null) return
    const wasReady = place.ready
    const entries = place.pipe.splice(0)
    place.child = null
    place.config = null
    place.ready = false
    place.hello?.cancel()
    place.hello = null
    child.kill()
    this.#replaced += 1
    this.#observer.emit('inspect.replaced', { why, detail })
    const moved: Job[] = []
    for (const [index, { job }] of entries.entries()) {
      if (job === null) continue
      if (index === 0) job.strikes += 1
      if (job.strikes >= STRIKES_MAX) this.#conclude(job, 'the inspector process ended twice', true)
      else moved.push(job)
    }
    this.#waiting.unshift(...moved)
    // One that ends without a mail in it would end again: no haste.
    if (wasReady && entries.length > 0) this.#spawn(place)
    else this.#spawnLater(place)
    this.#dispatch()
  }

  #watchLater(): void {
    this.#watch = this.#clock.after(WATCH_MS, () => {
      this.#watch = null
      if (this.#closed) return
      for (const place of this.#places) this.#look(place)
      this.#dispatch()
      if (this.#places.some((place) => place.pipe.length > 0)) this.#watchLater()
      else this.#restLater()
    })
  }

  /** The engine collects when it allocates: a child without mail would keep what a busy hour took. */
  #restLater(): void {
    this.#rest?.cancel()
    this.#rest = this.#clock.after(REST_MS, () => {
      this.#rest = null
      for (const place of this.#places) {
        if (place.ready && place.pipe.length === 0) place.child?.send({ kind: 'rest' })
      }
    })
  }

  /** Memory, and jobs that wait behind one that takes long. Only a child that works is looked at. */
  #look(place: Place): void {
    const first = place.pipe[0]
    if (place.child === null || first === undefined) return
    const excess = Math.max(0, first.bytes - USUAL_BODY_BYTES)
    const limit = (this.#options.memoryBytesMax ?? MEMORY_BYTES_MAX) + 3 * excess
    if (residentBytes(place.child.pid) > limit) {
      this.#replace(place, 'memory')
      return
    }
    if (this.#clock.monoMs() - place.firstSinceMs <= STALL_MS) return
    const back: Job[] = []
    for (const entry of place.pipe.slice(1)) {
      if (entry.job === null) continue
      back.push(entry.job)
      entry.job = null
    }
    this.#waiting.unshift(...back)
  }

  /** One look is over: done, or again with what the name servers say. */
  #looked(job: Job, seen: Seen): void {
    job.seen = {
      facts: seen.facts,
      insight: joinInsight(job.seen.insight, seen.insight),
      onward: joinOnward(job.seen.onward, seen.onward),
    }
    const asked = [...job.answers.values()].flatMap((answer) =>
      'questions' in answer ? answer.questions : [],
    )
    const questions = new Map(asked.map((question) => [keyOf(question), question]))
    for (const key of Object.keys(job.known)) questions.delete(key)
    const names = this.#names
    // Nothing new to ask: who still waits for an answer never gets one.
    if (questions.size === 0 || names === null || job.rounds >= ROUNDS_MAX) {
      this.#conclude(job, 'the name servers were not asked')
      return
    }
    job.rounds += 1
    this.#asking.add(job)
    const answers = [...questions].map(
      async ([key, question]) => [key, await names.query(question)] as const,
    )
    void Promise.all(answers).then((found) => {
      // Over its budget, or closed.
      if (!this.#asking.delete(job)) return
      job.known = { ...job.known, ...Object.fromEntries(found) }
      for (const [name, answer] of job.answers) {
        if ('questions' in answer) job.answers.delete(name)
      }
      this.#waiting.push(job)
      this.#dispatch()
    })
  }

  #conclude(job: Job, cause: string, ended = false): void {
    job.timer?.cancel()
    const parsed = job.answers.get(PARSE)
    const findings = parsed !== undefined && 'findings' in parsed ? [...parsed.findings] : []
    const unknowns = []
    for (const inspector of job.what.inspectors) {
      const answer = job.answers.get(inspector)
      if (answer !== undefined && 'findings' in answer) findings.push(...answer.findings)
      else {
        const why = answer !== undefined && 'cause' in answer ? answer.cause : cause
        unknowns.push({ inspector, cause: why })
      }
    }
    for (const unknown of unknowns) {
      this.#observer.emit('inspect.silent', { ...unknown, message: job.what.envelope.id })
    }
    job.finish({
      findings: capScores(findings),
      unknowns,
      ...job.seen,
      ...(ended ? { ended } : {}),
    })
  }
}

function extentsOf(body: Body) {
  return body.kind === 'memory' ? null : body.extents
}

function inlineOf(body: Body): Uint8Array | undefined {
  return body.kind === 'memory' ? body.bytes : undefined
}

/** Resident memory without what is shared with other processes of the same binary; 0 when it is gone. */
function residentBytes(pid: number): number {
  try {
    const words = readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')
    return (Number(words[1]) - Number(words[2])) * PAGE_BYTES
  } catch {
    return 0
  }
}

/** Pages of x86_64 and of the aarch64 kernels that we run on; a larger page only counts low. */
const PAGE_BYTES = 4_096
