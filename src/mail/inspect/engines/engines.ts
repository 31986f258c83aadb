/** The scanners beside us: all are asked at once, and who does not answer is unknown. */
import type { Clock } from '../../../base/clock.ts'
import { messageOf } from '../../../base/errors.ts'
import type { Observer } from '../../../base/observe.ts'
import { type EngineKind, type EngineLine, parseEngine } from '../../../config/lines.ts'
import { plainLine } from '../../../message/header.ts'
import type { Finding, Unknown } from '../../../message/verdict.ts'
import type { EngineHealth, InspectionJob } from '../contract.ts'
import { askClamd } from './clamd.ts'
import type { Ask } from './contract.ts'
import { askIcap } from './icap.ts'
import { askRspamd } from './rspamd.ts'
import { askSpamd } from './spamd.ts'

const ASK: Readonly<Record<EngineKind, Ask>> = {
  clamd: askClamd,
  icap: askIcap,
  rspamd: askRspamd,
  spamd: askSpamd,
}

/** A sender who was asked to come again brings the same mail: what answered before is not asked. */
const REMEMBERED_MAX = 5_000
const REMEMBERED_MS = 600_000

type Remembered = { readonly findings: readonly Finding[]; readonly untilMs: number }

export class Engines {
  readonly #clock: Clock
  readonly #observer: Observer
  /** By engine and mail; the oldest first. */
  readonly #remembered = new Map<string, Remembered>()
  readonly #failing = new Map<string, { readonly sinceMs: number; readonly cause: string }>()

  constructor({ clock, observer }: { readonly clock: Clock; readonly observer: Observer }) {
    this.#clock = clock
    this.#observer = observer
  }

  /** Never rejects. In the order of the settings. */
  async ask(
    job: InspectionJob,
  ): Promise<{ readonly findings: readonly Finding[]; readonly unknowns: readonly Unknown[] }> {
    const { settings } = job.config
    const lines = settings['engines.list'].flatMap((line) => parseEngine(line) ?? [])
    const timeoutMs = Math.min(settings['engines.timeout'] * 1_000, job.budgetMs)
    const answers = await Promise.all(lines.map((line) => this.#askOne(line, job, timeoutMs)))
    return {
      findings: answers.flatMap((answer) => answer.findings),
      unknowns: answers.flatMap((answer) => answer.unknown ?? []),
    }
  }

  /** Engines of `lines` that did not answer when they were asked last. */
  health(lines: readonly string[]): readonly EngineHealth[] {
    return lines.flatMap((text) => {
      const line = parseEngine(text)
      const failing = line === null ? undefined : this.#failing.get(addressOf(line))
      return line === null || failing === undefined ? [] : [{ name: line.name, ...failing }]
    })
  }

  async #askOne(
    line: EngineLine,
    { body, envelope, sha256 }: InspectionJob,
    timeoutMs: number,
  ): Promise<{ readonly findings: readonly Finding[]; readonly unknown?: Unknown }> {
    const key = `${addressOf(line)} ${sha256 ?? ''}`
    const known = sha256 === null ? undefined : this.#remembered.get(key)
    if (known !== undefined && known.untilMs > this.#clock.monoMs()) return known
    try {
      const findings = await ASK[line.kind](line, { body, envelope, timeoutMs }, this.#clock)
      this.#failing.delete(addressOf(line))
      if (sha256 !== null) this.#remember(key, findings)
      return { findings }
    } catch (error) {
      const cause = plainLine(messageOf(error), 200)
      this.#observer.emit('engine.failed', { engine: line.name, cause, message: envelope.id })
      const sinceMs = this.#failing.get(addressOf(line))?.sinceMs ?? this.#clock.wallMs()
      this.#failing.set(addressOf(line), { sinceMs, cause })
      return { findings: [], unknown: { inspector: line.name, cause, outage: line.outage } }
    }
  }

  #remember(key: string, findings: readonly Finding[]): void {
    this.#remembered.delete(key)
    this.#remembered.set(key, { findings, untilMs: this.#clock.monoMs() + REMEMBERED_MS })
    for (const oldest of this.#remembered.keys()) {
      if (this.#remembered.size <= REMEMBERED_MAX) return
      this.#remembered.delete(oldest)
    }
  }
}

/** Another place under the same name is another engine. */
function addressOf({ name, kind, host, port, path }: EngineLine): string {
  return `${name} ${kind} ${host} ${port} ${path}`
}
