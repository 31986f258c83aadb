/**
 * Jobs that happen once in the cluster, not once a node (design: cluster.md, Once-only jobs). The
 * job of a slot of time belongs to the living node of highest rank for (job, slot); what came of it
 * is a shared row. Without that row the next in rank takes over after ten minutes, and so on. Two
 * may do a slot while nodes do not see each other: what a job does must bear that.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { SharedRows } from '../store/shared.ts'
import type { Liveness, Roster } from './contract.ts'
import type { Patience } from './patience.ts'
import { ranked } from './rank.ts'

export const JOB_KIND = 'job'

/** What is due is looked for so often. */
const LOOK_MS = 15_000
/** Results of so many slots are kept, for who looks what happened. */
const SLOTS_KEPT = 30
const RESULT_CHARS_MAX = 500

export type Job = {
  /** A word; part of the row's key, and of the rank. */
  readonly name: string
  readonly slotMs: number
  /** Slots begin so long after their full time: clusters need not all ask others in one moment. 0 when left out. */
  readonly offsetMs?: number
  /**
   * Does what slot `slot` asks for, and gives what came of it in words. May be done twice for one
   * slot, on two nodes. @throws StoreError: it is tried again
   */
  run(slot: number): Promise<string>
}

export type JobsDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly rows: SharedRows
  readonly roster: Pick<Roster, 'self' | 'members'>
  readonly members: { get(node: NodeId): Pick<Liveness, 'life'> | null }
  readonly patience: Pick<Patience, 'jobMs'>
  /** False while the rows of the others are still to come: a result may be among them. */
  readonly isCaughtUp: () => boolean
}

export class Jobs {
  readonly #deps: JobsDeps
  readonly #jobs: Job[] = []
  readonly #running = new Set<string>()
  /** Since when a slot is known here to be due, by job; monotonic. */
  readonly #due = new Map<string, { slot: number; sinceMono: number }>()
  #timer: Timer
  #isStopped = false

  constructor(deps: JobsDeps) {
    this.#deps = deps
    this.#timer = deps.clock.after(LOOK_MS, () => this.#look())
  }

  add(job: Job): void {
    this.#jobs.push(job)
  }

  stop(): void {
    this.#isStopped = true
    this.#timer.cancel()
  }

  #look(): void {
    if (this.#isStopped) return
    this.#timer = this.#deps.clock.after(LOOK_MS, () => this.#look())
    if (!this.#deps.isCaughtUp()) return
    for (const job of this.#jobs) {
      const slot = Math.floor((this.#deps.clock.wallMs() - (job.offsetMs ?? 0)) / job.slotMs)
      if (this.#isMine(job, slot)) void this.#run(job, slot)
    }
  }

  /** Due, not done, and every node before this one in rank has had its time. */
  #isMine({ name }: Job, slot: number): boolean {
    const { rows, clock, patience } = this.#deps
    const row = rows.owned(JOB_KIND, name)
    if ((row !== null && row.version[0] >= slot) || this.#running.has(name)) return false
    const nowMono = clock.monoMs()
    const known = this.#due.get(name)
    const due = known?.slot === slot ? known : { slot, sinceMono: nowMono }
    this.#due.set(name, due)
    const { node } = this.#deps.roster.self
    const place = ranked(`${name} ${slot}`, this.#living()).indexOf(node)
    return place >= 0 && nowMono - due.sinceMono >= place * patience.jobMs
  }

  /** Members that are there and at work. A node that drains leaves its jobs to the others. */
  #living(): readonly NodeId[] {
    const { roster, members } = this.#deps
    const { node: here } = roster.self
    return roster
      .members()
      .filter(({ node, drain }) => {
        const isAlive = node === here || members.get(node)?.life === 'alive'
        return isAlive && drain === 'accepting'
      })
      .map(({ node }) => node)
  }

  /** Never rejects. */
  async #run(job: Job, slot: number): Promise<void> {
    const { rows, observer, clock, roster } = this.#deps
    const { name, slotMs } = job
    this.#running.add(name)
    try {
      const result = (await job.run(slot)).slice(0, RESULT_CHARS_MAX)
      if (this.#isStopped) return
      const value = JSON.stringify({ by: roster.self.node, atMs: clock.wallMs(), result })
      const before = rows.owned(JOB_KIND, name)
      // Somebody else was quicker.
      if (before !== null && before.version[0] >= slot) return
      const untilMs = (slot + SLOTS_KEPT) * slotMs
      rows.put(JOB_KIND, name, [slot, 1], value, 'postern', untilMs)
      observer.emit('job.done', { job: name, slot, result })
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('job.failed', { job: name, slot, cause: messageOf(error) })
    } finally {
      this.#running.delete(name)
    }
  }
}
