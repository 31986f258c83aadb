/** What the pipeline asks of the inspectors, and what it gets: the seam to the pool. */
import type { Body } from '../../message/body.ts'
import type { Envelope } from '../../message/envelope.ts'
import type { Sample } from '../../message/learned.ts'
import type { Inspection } from '../../message/verdict.ts'
import type { InspectConfig } from './look.ts'

export type InspectionJob = {
  readonly envelope: Envelope
  readonly body: Body
  /** Names of config/schema `inspect.inspectors`; an empty list needs no process. */
  readonly inspectors: readonly string[]
  readonly config: InspectConfig
  /** As SessionFacts. */
  readonly clientName: string | null
  /** SHA-256 of the body, hex; null: nobody computed it. */
  readonly sha256: string | null
  readonly budgetMs: number
}

/** A message made safe to show: nothing in it loads, links or runs. */
export type Preview = {
  readonly subject: string | null
  readonly from: string | null
  readonly to: string | null
  readonly date: string | null
  /** Header fields in order, decoded, at most 500. */
  readonly headers: readonly { readonly name: string; readonly value: string }[]
  /** Plain text, at most 256 KB; null when there is none. */
  readonly text: string | null
  /** Sanitised markup, at most 512 KB; null when the mail has no HTML part. */
  readonly html: string | null
  readonly attachments: readonly {
    readonly name: string
    readonly type: string
    readonly sizeBytes: number
    readonly sha256: string
  }[]
  /** What could not be shown and why, whole sentences. */
  readonly notes: readonly string[]
}

/** What a child's confinement has and lacks: for doctor, status and /readyz. */
export type PoolHealth = {
  readonly processes: number
  readonly ready: number
  /** E.g. `landlock`: parts of the confinement that this host does not offer. */
  readonly missing: readonly string[]
  /** Children ended for overrun, memory or a crash since the start. */
  readonly replaced: number
}

/** An engine that did not answer when it was asked last. */
export type EngineHealth = {
  readonly name: string
  /** Wall ms of its first silence since it answered. */
  readonly sinceMs: number
  readonly cause: string
}

export interface Inspectors {
  /**
   * Findings of all inspectors named in the job, within its budget. Never rejects: an overrun,
   * a crash or a missing process is an `Unknown` of each inspector that did not answer.
   */
  inspect(job: InspectionJob): Promise<Inspection>
  /** @throws GatewayError when no process answers in 10 s */
  preview(body: Body): Promise<Preview>
  /** What is learnt of a message. @throws GatewayError when no process answers in 10 s */
  sample(body: Body): Promise<Sample>
  health(): PoolHealth
  close(): Promise<void>
}
