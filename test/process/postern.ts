/** One real node as a test sees it: start, command line, API by the socket, kill, stop. */
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { TestNameServer } from '../name-server.ts'
import { freePort } from '../ports.ts'
import { posternCommand } from '../real.ts'

const clock = new SystemClock()

export type StartOptions = {
  /** Data directory; a fresh temporary one without it, removed by `dispose`. */
  readonly data?: string
  readonly smtpPort?: number
  readonly environment?: Readonly<Record<string, string>>
  /** Words before the program, e.g. `strace -f`. */
  readonly wrapper?: readonly string[]
  /** The binary of another build. */
  readonly program?: string
  readonly options?: readonly string[]
  readonly readyMs?: number
}

export type Answer = { readonly code: number; readonly out: string; readonly err: string }

/** What the machine has for a name server must not decide a test: here nobody has a name. */
let nobody: Promise<TestNameServer> | null = null

const living = new Set<Subprocess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

export class Postern {
  readonly data: string
  readonly smtpPort: number
  readonly webPort: number
  /** Stderr of all lives of the node in this directory. */
  readonly logFile: string
  readonly #options: StartOptions
  readonly #own: string | null
  #child: Subprocess<'ignore', 'pipe', number> | null = null
  /** Ms from the start of the process to `ready`, last start. */
  readyMs = 0
  stdout = ''

  private constructor(options: StartOptions) {
    this.#options = options
    this.#own = options.data === undefined ? mkdtempSync(join(tmpdir(), 'postern-proof-')) : null
    this.data = options.data ?? join(this.#own ?? '', 'data')
    this.logFile = `${this.data.replace(/\/$/, '')}.log`
    this.smtpPort = options.smtpPort ?? freePort()
    this.webPort = freePort()
  }

  /** Starts a node and waits for its `ready` line. @throws with its log when it does not come */
  static async start(options: StartOptions = {}): Promise<Postern> {
    const node = new Postern(options)
    const isFresh = !existsSync(node.data)
    try {
      await node.begin()
      if (isFresh && options.options?.includes('--join') !== true) {
        nobody ??= TestNameServer.start(() => ({ code: 3 }))
        await node.setAs('dns.servers', [`127.0.0.1:${(await nobody).at.port}`])
      }
    } catch (error) {
      await node.dispose()
      throw error
    }
    return node
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Starts the process again on the same directory and ports, with `options` for this once. */
  async begin(...options: readonly string[]): Promise<void> {
    const began = clock.monoMs()
    const log = openSync(this.logFile, 'a')
    const child = Bun.spawn(
      [
        ...(this.#options.wrapper ?? []),
        ...this.#words('serve', '--data', this.data),
        ...['--smtp', `127.0.0.1:${this.smtpPort}`],
        ...['--web', `http://127.0.0.1:${this.webPort}`],
        ...['--peer', `127.0.0.1:${freePort()}`],
        ...(this.#options.options ?? []),
        ...options,
      ],
      {
        stdin: 'ignore',
        stdout: 'pipe',
        stderr: log,
        env: { ...process.env, ...this.#options.environment },
      },
    )
    closeSync(log)
    this.#child = child
    living.add(child)
    void child.exited.then(() => living.delete(child))
    const ready = await this.#ready(child, this.#options.readyMs ?? 20_000)
    if (!ready) {
      child.kill('SIGKILL')
      throw new Error(
        `no ready line within ${this.#options.readyMs ?? 20_000} ms:\n${this.stdout}\n${this.log().slice(-4_000)}`,
      )
    }
    this.readyMs = clock.monoMs() - began
  }

  #ready(child: Subprocess<'ignore', 'pipe', number>, timeoutMs: number): Promise<boolean> {
    this.stdout = ''
    return new Promise((resolve) => {
      const timer = clock.after(timeoutMs, () => resolve(false))
      const read = async () => {
        const decoder = new TextDecoder()
        for await (const bytes of child.stdout) {
          this.stdout += decoder.decode(bytes, { stream: true })
          if (/^ready$/m.test(this.stdout)) {
            timer.cancel()
            resolve(true)
          }
        }
        timer.cancel()
        resolve(false)
      }
      void read()
    })
  }

  #words(...args: string[]): string[] {
    const { program } = this.#options
    return program === undefined ? posternCommand(...args) : [program, ...args]
  }

  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : ''
  }

  /** One command of the binary against this node. */
  async command(...words: string[]): Promise<Answer> {
    const child = Bun.spawn(this.#words('--data', this.data, ...words), {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: 30_000,
      killSignal: 'SIGKILL',
    })
    const [out, err, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    return { code, out, err }
  }

  /** As `command`, with `--json` and the parsed answer. @throws when it is refused */
  async json<Value>(...words: string[]): Promise<Value> {
    const { code, out, err } = await this.command(...words, '--json')
    if (code !== 0) throw new Error(`${words.join(' ')}: exit ${code}: ${out}${err}`)
    return JSON.parse(out) as Value
  }

  /** A value as JSON. @throws when it is refused */
  async setAs(key: string, value: unknown): Promise<void> {
    const body = JSON.stringify({ value })
    await this.api(`/api/v1/settings/${key}`, { method: 'PUT', body })
  }

  /** @throws when it is refused */
  async set(key: string, value: string): Promise<void> {
    const { code, out, err } = await this.command('config', 'set', key, value)
    if (code !== 0) throw new Error(`config set ${key} ${value}: exit ${code}: ${out}${err}`)
  }

  async addDomain(name: string, ...nextHops: string[]): Promise<void> {
    const { code, out, err } = await this.command(
      'domain',
      'add',
      name,
      '--next-hop',
      nextHops.join(','),
    )
    if (code !== 0) throw new Error(`domain add ${name}: exit ${code}: ${out}${err}`)
  }

  /** The HTTP API through DIR/control.sock. */
  fetch(path: string, init: { method?: string; body?: string } = {}): Promise<Response> {
    return fetch(`http://localhost${path}`, {
      ...init,
      ...(init.body === undefined ? {} : { headers: { 'content-type': 'application/json' } }),
      unix: join(this.data, 'control.sock'),
    })
  }

  async api<Value>(path: string, init: { method?: string; body?: string } = {}): Promise<Value> {
    const response = await this.fetch(path, init)
    const text = await response.text()
    if (!response.ok) throw new Error(`${init.method ?? 'GET'} ${path}: ${response.status} ${text}`)
    return JSON.parse(text) as Value
  }

  status(): Promise<{
    ready: boolean
    queue: { messages: number }
    held: number
    possibleDuplicates?: number
  }> {
    return this.api('/api/v1/status')
  }

  /** The value of one metric, summed over its labels. */
  async metric(name: string): Promise<number> {
    const text = await (await this.fetch('/metrics')).text()
    let sum = 0
    for (const line of text.split('\n')) {
      if (line.startsWith(`${name} `) || line.startsWith(`${name}{`))
        sum += Number(line.slice(line.lastIndexOf(' ') + 1))
    }
    return sum
  }

  /** Resolves true when nothing waits in the queue, false after `timeoutMs`. */
  async queueEmpty(timeoutMs: number): Promise<boolean> {
    const deadline = clock.monoMs() + timeoutMs
    for (;;) {
      if ((await this.status()).queue.messages === 0) return true
      if (clock.monoMs() > deadline) return false
      await pause(clock, 20)
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name)
  }

  /** Resolves with its exit code when this life of it is over. */
  async ended(): Promise<number> {
    return (await this.#child?.exited) ?? 0
  }

  /** `kill -9`, and waits until the process is gone. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#child?.exited
  }

  /** SIGTERM; SIGKILL when it takes longer than `timeoutMs`. Gives the exit code. */
  async stop(timeoutMs = 15_000): Promise<number> {
    const child = this.#child
    if (child === null) return 0
    child.kill('SIGTERM')
    const timer = clock.after(timeoutMs, () => child.kill('SIGKILL'))
    const code = await child.exited
    timer.cancel()
    return code
  }

  /** Ends the node and removes its temporary directory. */
  async dispose(): Promise<void> {
    if (this.running) await this.kill()
    if (this.#own !== null && process.env['POSTERN_KEEP'] === undefined)
      rmSync(this.#own, { recursive: true, force: true })
  }
}
