/** One inspector process seen from the pool: its pipe, its reports, its end. */
import { plainLine } from '../../message/header.ts'
import {
  encodeFrame,
  FrameReader,
  type Order,
  REPORT_BYTES_MAX,
  type Report,
  readReport,
} from './frames.ts'

export type ChildListener = {
  /** Checked reports in their order. */
  readonly report: (report: Report) => void
  /** Once: the process ended, or said what no child says. `words`: what it said on failing to start. */
  readonly ended: (words?: string) => void
}

export class Child {
  readonly #process: Bun.Subprocess<'pipe', 'pipe', 'pipe'>
  readonly #listener: ChildListener
  #flushing = false
  #over = false
  #started = false

  /** @throws Error when the process cannot be started */
  constructor(command: readonly string[], listener: ChildListener) {
    this.#listener = listener
    this.#process = Bun.spawn([...command], {
      stdin: 'pipe',
      stdout: 'pipe',
      // Its words would stand between our log lines. They are read only when it does not start.
      stderr: 'pipe',
      cwd: '/',
      // Empty: BUN_OPTIONS and its like run foreign code in any Bun binary.
      env: {},
    })
    this.#listen()
  }

  get pid(): number {
    return this.#process.pid
  }

  get exited(): Promise<number> {
    return this.#process.exited
  }

  /** Never throws: a child that is gone reports its end by itself. */
  send(order: Order, raw?: Uint8Array): void {
    if (this.#over) return
    try {
      this.#process.stdin.write(encodeFrame(order, raw))
      this.#flushSoon()
    } catch {
      this.#finish()
    }
  }

  /** Closes its input: it ends by itself after the job under way. */
  end(): void {
    this.#over = true
    try {
      void Promise.resolve(this.#process.stdin.end()).catch(() => {})
    } catch {
      // Already closed by the other side.
    }
  }

  kill(): void {
    this.#over = true
    this.#process.kill('SIGKILL')
  }

  /** Jobs of one turn of the loop go out in one write. */
  #flushSoon(): void {
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(() => {
      this.#flushing = false
      try {
        void Promise.resolve(this.#process.stdin.flush()).catch(() => {})
      } catch {
        this.#finish()
      }
    })
  }

  async #listen(): Promise<void> {
    const reader = new FrameReader(REPORT_BYTES_MAX)
    try {
      for await (const chunk of this.#process.stdout) {
        reader.push(chunk)
        for (let frame = reader.next(); frame !== null; frame = reader.next()) {
          const report = readReport(frame.head)
          if (report === null) return this.#finish()
          this.#started = true
          if (!this.#over) this.#listener.report(report)
        }
      }
    } catch {
      // A frame that cannot be, or a broken pipe: either way this child is done.
    }
    this.#finish(this.#started || this.#over ? undefined : await this.#lastWords())
  }

  /** The first line that a process wrote before it ended; it has seen no mail yet. */
  async #lastWords(): Promise<string> {
    this.#process.kill('SIGKILL')
    try {
      const { value } = await this.#process.stderr.getReader().read()
      return plainLine(Buffer.from(value ?? Buffer.of()).toString('utf8', 0, 2_000), 200)
    } catch {
      return ''
    }
  }

  #finish(words?: string): void {
    if (this.#over) return
    this.#over = true
    this.#listener.ended(words)
  }
}
