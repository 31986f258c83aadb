/**
 * `/join`: what a fresh machine needs to become a node, without a login: a script, and this very
 * program. Neither is secret; who joins needs a token.
 */
import { Elysia } from 'elysia'
import installer from '../../appliance/install.sh' with { type: 'text' }
import { RefusalError } from '../../src/base/errors.ts'
import type { Site } from '../site.ts'

/** Copies of the program that are on their way at once: each is 100 MB. */
const COPIES_MAX = 8

export function joinPages({ admin, program }: Pick<Site, 'admin' | 'program'>) {
  const copies = program === null ? null : new Copies(program)
  return new Elysia()
    .get('/join', async ({ request }) => {
      const { webPin, web } = admin.status()
      const script = scriptFor({
        url: originOf(request) ?? web,
        pin: webPin ?? '',
        sum: (await copies?.sum()) ?? '',
        machine: MACHINES[process.arch] ?? process.arch,
      })
      return new Response(script, { headers: { 'content-type': 'text/x-shellscript' } })
    })
    .get('/join/postern', () => {
      if (copies !== null) return copies.next()
      const words = 'This node runs from source, and has no program to give.\n'
      return new Response(words, { status: 404, headers: { 'content-type': 'text/plain' } })
    })
}

/** As `uname -m` says it. */
const MACHINES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' }

export type ScriptFacts = {
  /** Where the node was reached, without a path. */
  readonly url: string
  /** `sha256//…`; empty on plain http. */
  readonly pin: string
  /** SHA-256 of the program in hex; empty: there is none. */
  readonly sum: string
  readonly machine: string
}

/** What goes into the script stands in single quotes there: nothing else is let in. */
const HARMLESS = /^[\w.:/[\]+=-]*$/

/** The installer for one node. @throws RefusalError for an address that no shell should see */
export function scriptFor({ url, pin, sum, machine }: ScriptFacts): string {
  const facts = { URL: url, PIN: pin, SUM: sum, MACHINE: machine }
  for (const [field, value] of Object.entries(facts)) {
    if (HARMLESS.test(value)) continue
    throw new RefusalError(
      'invalid',
      field.toLowerCase(),
      'The address of this node has characters that do not belong in one.',
      'Ask by its name or address.',
    )
  }
  return installer.replace(/@(URL|PIN|SUM|MACHINE)@/g, (_, name: keyof typeof facts) => facts[name])
}

/** As the client wrote it: behind a translated address the node does not know its own. */
function originOf(request: Request): string | null {
  const { origin } = new URL(request.url)
  return origin === 'null' ? null : origin
}

/** This program, for those who ask. An upgrade may put another one in its place. */
class Copies {
  readonly #path: string
  #known: { readonly name: string; readonly sum: Promise<string> } | null = null
  #open = 0

  constructor(path: string) {
    this.#path = path
  }

  /** SHA-256 in hex of what `next` gives. */
  async sum(): Promise<string> {
    const file = Bun.file(this.#path)
    const { size, mtimeMs, ino } = await file.stat()
    const name = `${size} ${mtimeMs} ${ino}`
    if (this.#known?.name !== name) {
      const sum = hashOf(file)
      this.#known = { name, sum }
      // What failed is tried again by the next who asks.
      sum.catch(() => {
        this.#known = null
      })
    }
    return await this.#known.sum
  }

  next(): Response {
    if (this.#open >= COPIES_MAX) {
      throw new RefusalError(
        'unavailable',
        null,
        `${COPIES_MAX} machines are getting the program now.`,
        'Run the same line again in a minute.',
      )
    }
    const headers = { 'content-type': 'application/octet-stream' }
    return new Response(this.#counted(Bun.file(this.#path).stream()), { headers })
  }

  /** Counts from the first piece that is asked for: a HEAD request asks for none. */
  #counted(stream: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
    let reader: ReadableStreamDefaultReader<Uint8Array> | null = null
    const ended = (): void => {
      if (reader !== null) this.#open -= 1
      reader = null
    }
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          if (reader === null) {
            reader = stream.getReader()
            this.#open += 1
          }
          const { done, value } = await reader.read().catch((error) => {
            ended()
            throw error
          })
          if (!done) return controller.enqueue(value)
          ended()
          controller.close()
        },
        cancel: async () => {
          await reader?.cancel()
          ended()
        },
      },
      { highWaterMark: 0 },
    )
  }
}

async function hashOf(file: Blob): Promise<string> {
  const hash = new Bun.CryptoHasher('sha256')
  for await (const piece of file.stream()) hash.update(piece)
  return hash.digest('hex')
}
