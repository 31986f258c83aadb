/** The child process: confines itself, then answers orders from its standard input until it ends. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { SystemClock } from '../../base/clock.ts'
import { assert, messageOf } from '../../base/errors.ts'
import type { Extent } from '../../message/body.ts'
import { writeSample } from '../../message/learned.ts'
import type { Answer } from './answers.ts'
import { confine } from './confine.ts'
import { encodeFrame, FrameReader, ORDER_BYTES_MAX, type Order, type Said } from './frames.ts'
import { inspectMail } from './inspectors.ts'
import type { InspectConfig } from './look.ts'
import { ModelFiles } from './model.ts'
import { runProbe } from './probe.ts'
import { CHECK_YARA, runYaraCheck } from './yara-check.ts'

/** Free room for a read: a body of the usual size comes in one call. */
const READ_BYTES = 64 * 1024
/** A buffer above this size is given back after its job. */
const KEPT_BYTES_MAX = 1024 * 1024
/** An answer waits at most this long for the next one of its job. */
const TELL_MS_MAX = 20
/** Largest body that is put together from extents. */
const BODY_BYTES_MAX = 1_100_000_000
/** Bodies put together from extents are garbage after their job; the engine sees no pressure. */
const COLLECT_EVERY_BYTES = 16 * 1024 * 1024

let uncollectedBytes = 0
let config: InspectConfig | null = null
/** Null until the walls stand, which it must be made before. */
let models: ModelFiles | null = null

/**
 * What `postern inspector` runs; `args` are the words after that command: `--read DIR` for each
 * directory in which bodies lie. Returns the exit code when standard input ends. With `--probe`
 * it tells what its confinement refuses (probe.ts), with `--check-yara` what is wrong with rules
 * (yara-check.ts).
 */
export async function runInspector(
  args: readonly string[] = process.argv.slice(3),
): Promise<number> {
  if (args.includes('--probe')) return runProbe(args)
  if (args.includes(CHECK_YARA)) return runYaraCheck(args)
  const readable = args.filter((_, index) => args[index - 1] === '--read')
  const reader = new FrameReader(ORDER_BYTES_MAX)
  try {
    models = new ModelFiles()
    report({ kind: 'hello', missing: confine({ readable }, args).missing })
    // Blocking reads: this process has nothing else to wait for, and they cost a third of events.
    for (;;) {
      const room = reader.room(READ_BYTES)
      const length = readSync(0, room, 0, room.length, null)
      if (length === 0) return 0
      reader.filled(length)
      for (let frame = reader.next(); frame !== null; frame = reader.next()) {
        // The head is the parent's own: frames from it are not judged.
        await obey(frame.head as Order, frame.raw, readable)
      }
      reader.shrink(KEPT_BYTES_MAX)
    }
  } catch (error) {
    tryReport({ kind: 'failed', job: 0, cause: messageOf(error) })
    return 1
  }
}

async function obey(order: Order, inline: Buffer, readable: readonly string[]): Promise<void> {
  if (order.kind === 'rest') {
    Bun.gc(true)
    return
  }
  if (order.kind === 'config') {
    config = order.config
    return
  }
  try {
    const raw = order.extents === null ? inline : readExtents(order.extents, readable)
    if (order.kind === 'inspect') await inspectOne(order, raw)
    else if (order.kind === 'sample') {
      const { sampleOf } = await import('./sample.ts')
      report({ kind: 'sample', job: order.job, sample: writeSample(sampleOf(raw)) })
    } else {
      // Only a child that shows mail pays for the parser and the sanitiser.
      const { previewOf } = await import('./preview.ts')
      report({ kind: 'preview', job: order.job, preview: await previewOf(raw) })
    }
    if (order.extents !== null) collectAfter(raw.length)
  } catch (error) {
    report({ kind: 'failed', job: order.job, cause: messageOf(error) })
  }
}

function collectAfter(bytes: number): void {
  uncollectedBytes += bytes
  if (uncollectedBytes < COLLECT_EVERY_BYTES) return
  uncollectedBytes = 0
  Bun.gc(true)
}

async function inspectOne(order: Extract<Order, { kind: 'inspect' }>, raw: Buffer): Promise<void> {
  assert(config !== null, 'a child knows its config before its first job')
  const clock = new SystemClock()
  let toldMs = clock.monoMs()
  let answers: Answer[] = []
  const { session, answers: known, inspectors } = order
  const task = { session, config, answers: known, model: models?.at(config.modelPath) ?? null }
  const seen = await inspectMail(raw, task, inspectors, (answer) => {
    answers.push(answer)
    // What speaks against the mail, and what took long, must survive an overrun of the next one.
    const nowMs = clock.monoMs()
    if (!('findings' in answer && answer.findings.length > 0) && nowMs - toldMs < TELL_MS_MAX)
      return
    report({ kind: 'answers', job: order.job, answers, seen: null })
    answers = []
    toldMs = nowMs
  })
  report({ kind: 'answers', job: order.job, answers, seen })
}

/** @throws Error when a file is outside `readable`, missing or shorter than the extent says */
function readExtents(extents: readonly Extent[], readable: readonly string[]): Buffer {
  const sizeBytes = extents.reduce((sum, extent) => sum + extent.length, 0)
  assert(sizeBytes <= BODY_BYTES_MAX, 'a body has a bounded size')
  const body = Buffer.allocUnsafeSlow(sizeBytes)
  let at = 0
  let path: string | null = null
  let fd = -1
  try {
    for (const extent of extents) {
      if (extent.path !== path) {
        if (fd !== -1) closeSync(fd)
        fd = -1
        assert(isBelow(extent.path, readable), 'a body lies in a directory that may be read')
        fd = openSync(extent.path, constants.O_RDONLY | constants.O_NOFOLLOW)
        path = extent.path
      }
      const end = at + extent.length
      for (let offset = extent.offset; at < end; ) {
        const length = readSync(fd, body, at, end - at, offset)
        assert(length > 0, 'an extent is as long as it says')
        at += length
        offset += length
      }
    }
  } finally {
    if (fd !== -1) closeSync(fd)
  }
  return body
}

function isBelow(path: string, directories: readonly string[]): boolean {
  return !path.includes('/../') && directories.some((directory) => path.startsWith(`${directory}/`))
}

/** @throws Error when the parent is gone */
function report(head: Said): void {
  const frame = encodeFrame(head)
  for (let at = 0; at < frame.length; ) at += writeSync(1, frame, at)
}

function tryReport(head: Said): void {
  try {
    report(head)
  } catch {
    // The parent is gone: nobody is left to tell.
  }
}
