/** One inspector process seen from the pool: its pipe, its reports, its end. */
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
  /** Once: the process ended, or said what no child says. */
  readonly ended: () => void
}

export class Child {
  readonly #process: Bun.Subprocess<'pipe', 'pipe', 'ignore'>
  readonly #listener: ChildListener
  #flushing = false
  #over = false

  /** @throws Error when the process cannot be started */
  constructor(command: readonly string[], listener: ChildListener) {
    this.#listener = listener
    this.#process = Bun.spawn([...command], {
      stdin: 'pipe',
      stdout: 'pipe',
      // Its words would stand between our log lines; what it has to say it reports.
      stderr: 'ignore',
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
          if (!this.#over) this.#listener.report(report)
        }
      }
    } catch {
      // A frame that cannot be, or a broken pipe: either way this child is done.
    }
    this.#finish()
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#listener.ended()
  }
}
