/**
 * Who asks, and may they: session cookie, forgery, roles, size of the body. It stands before
 * every route, so that no page can forget it.
 */
import { timingSafeEqual } from 'node:crypto'
import type { Admin, Author } from '../src/admin/contract.ts'
import { RefusalError } from '../src/base/errors.ts'

/** Bytes of a request body; the longest form is a list of recipients. */
export const BODY_BYTES_MAX = 1_048_576
/** Fields of a form: a page of marked rows has 200. */
export const FIELDS_MAX = 1_000

/** Where a request comes from; `trusted` is the control socket, guarded by file permission. */
export type Client = { readonly ip: string; readonly trusted: boolean }

export type Visit = {
  readonly client: Client
  /** Null where no login is needed and nobody is signed in. */
  readonly author: Author | null
  readonly session: string | null
  /** An API token names the author: nothing of a browser is sent along by itself. */
  readonly byToken: boolean
  /** Empty without a session. */
  readonly csrf: string
  /** Asked by htmx: the address of the page stays. */
  readonly htmx: boolean
  readonly theme: 'light' | 'dark' | null
}

/** Everybody may ask for these: nothing is shown that a stranger may not know. */
const OPEN =
  /^\/(assets\/|livez$|readyz$|metrics$|login$|setup(\/|$)|theme$|join(\/postern)?$|api\/v1\/(login|setup|openapi\.json)$)/
/** What an operator with the role viewer may post. */
const VIEWER_MAY =
  /^\/(logout|theme|account\/password|api\/v1\/logout|api\/v1\/operators\/[^/]+\/password)$/
/** Where `Authorization: Bearer …` is read: scripts ask there, pages never. */
const BY_TOKEN = /^\/(api\/|metrics$)/
/** There is no session to bind a token to: these take a password, the one-time code, or nothing. */
const WITHOUT_TOKEN = /^\/(login|setup(\/\w+)?|theme|api\/v1\/(login|setup))$/

export class Guard {
  readonly #admin: Admin
  readonly #secure: boolean
  readonly #visits = new WeakMap<Request, Visit>()

  constructor(deps: { readonly admin: Admin; readonly secure: boolean }) {
    this.#admin = deps.admin
    this.#secure = deps.secure
  }

  /**
   * The request with its body read, known to `visitOf`.
   * @throws RefusalError unauthenticated, forbidden or invalid
   */
  async enter(request: Request, client: Client): Promise<Request> {
    const { pathname } = new URL(request.url)
    const visit = this.#look(request, client, pathname)
    const acts = request.method !== 'GET' && request.method !== 'HEAD'
    if (acts) fromOurPages(request, client)
    if (visit.author === null && !OPEN.test(pathname)) throw signInFirst()
    const body = acts ? await readBody(request) : null
    if (acts && !client.trusted) this.#mayAct(request, visit, pathname, body ?? '')
    const entered = new Request(request.url, {
      method: request.method === 'HEAD' ? 'GET' : request.method,
      headers: request.headers,
      ...(body === null || body === '' ? {} : { body }),
    })
    this.#visits.set(entered, visit)
    return entered
  }

  /** Who asks; a request that did not come through `enter` is a stranger. */
  visitOf(request: Request): Visit {
    const visit = this.#visits.get(request)
    if (visit === undefined) throw signInFirst()
    return visit
  }

  /** Who asked for something that was refused before or after it entered. Never throws. */
  strangerOr(entered: Request, request: Request, client: Client): Visit {
    const visit = this.#visits.get(entered)
    if (visit !== undefined) return visit
    try {
      return this.#look(request, client, new URL(request.url).pathname)
    } catch {
      const nobody = { author: null, session: null, byToken: false, csrf: '' }
      return { client, ...nobody, htmx: false, theme: null }
    }
  }

  /** @throws RefusalError unauthenticated */
  authorOf(request: Request): Author {
    const { author } = this.visitOf(request)
    if (author === null) throw signInFirst()
    return author
  }

  /** Is who opened this page still signed in? For answers that go on for long. */
  isStillIn({ client, session }: Visit): boolean {
    return client.trusted || (session !== null && this.#admin.authenticate(session) !== null)
  }

  /** The cookie that keeps an operator signed in until the browser closes. */
  cookie(session: string): string {
    return `${this.#cookieName}=${session}; Path=/; HttpOnly; SameSite=Strict${this.#flag}`
  }

  goodbye(): string {
    return `${this.#cookieName}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0${this.#flag}`
  }

  themeCookie(theme: 'light' | 'dark'): string {
    return `theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax${this.#flag}`
  }

  /** The token that a form or the header X-CSRF-Token must carry in this session. */
  token(session: string): string {
    // Keyed by the session, which only this browser knows: it outlives a restart and needs no key.
    return new Bun.CryptoHasher('sha256', session).update('postern csrf').digest('hex')
  }

  get #cookieName(): string {
    return this.#secure ? '__Host-postern' : 'postern'
  }

  get #flag(): string {
    return this.#secure ? '; Secure' : ''
  }

  #look(request: Request, client: Client, pathname: string): Visit {
    const cookies = cookiesOf(request.headers.get('cookie') ?? '')
    const theme = cookies.get('theme')
    const nobody: Visit = {
      client,
      author: null,
      session: null,
      byToken: false,
      csrf: '',
      htmx: request.headers.get('hx-request') === 'true',
      theme: theme === 'light' || theme === 'dark' ? theme : null,
    }
    if (client.trusted) return { ...nobody, author: { name: 'cli', role: 'admin' } }
    const token = BY_TOKEN.test(pathname) ? bearer(request) : null
    if (token !== null) return { ...nobody, author: this.#byToken(token), byToken: true }
    const session = cookies.get(this.#cookieName) ?? ''
    const author = session === '' ? null : this.#admin.authenticate(session)
    if (author === null) return nobody
    return { ...nobody, author, session, csrf: this.token(session) }
  }

  /** @throws RefusalError unauthenticated */
  #byToken(token: string): Author {
    const author = this.#admin.authenticateToken(token)
    if (author !== null) return author
    throw new RefusalError(
      'unauthenticated',
      null,
      'This API token is unknown, expired or revoked.',
      'Make another one on the page Operators.',
    )
  }

  #mayAct(request: Request, visit: Visit, pathname: string, body: string): void {
    if (!visit.byToken && !WITHOUT_TOKEN.test(pathname)) {
      const given = request.headers.get('x-csrf-token') ?? formToken(request, body)
      if (visit.csrf === '' || !equal(given, visit.csrf)) throw forged()
    }
    const may = !visit.byToken && VIEWER_MAY.test(pathname)
    if (visit.author?.role === 'viewer' && !may) {
      throw new RefusalError(
        'forbidden',
        null,
        'A viewer may look and not change anything.',
        'Ask an operator with the role admin.',
      )
    }
  }
}

function signInFirst(): RefusalError {
  return new RefusalError('unauthenticated', null, 'Nobody is signed in.', 'Sign in first.')
}

function forged(): RefusalError {
  return new RefusalError(
    'forbidden',
    null,
    'The request does not come from a page of this session.',
    'Reload the page and try again; a script sends the csrf of its login as X-CSRF-Token.',
  )
}

/**
 * Browsers say where a request was made; programs do not. A page of another site may send
 * forms here with nothing but a click, so it is refused before anything else.
 */
function fromOurPages(request: Request, client: Client): void {
  if (client.trusted) return
  const site = request.headers.get('sec-fetch-site')
  if (site !== null) {
    if (site === 'same-origin' || site === 'none') return
    throw forged()
  }
  const origin = request.headers.get('origin')
  if (origin === null) return
  const host = request.headers.get('host') ?? new URL(request.url).host
  if (URL.parse(origin)?.host !== host) throw forged()
}

/** The whole body as text, at most BODY_BYTES_MAX. @throws RefusalError invalid */
async function readBody(request: Request): Promise<string> {
  const type = (request.headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  const pieces: Uint8Array[] = []
  let sizeBytes = 0
  if (request.body !== null) {
    for await (const piece of request.body as unknown as AsyncIterable<Uint8Array>) {
      sizeBytes += piece.length
      if (sizeBytes > BODY_BYTES_MAX) {
        throw new RefusalError('invalid', null, 'The request is larger than 1 MB.', 'Send less.')
      }
      pieces.push(piece)
    }
  }
  const body = Buffer.concat(pieces).toString('utf8')
  if (body === '') return ''
  const api = new URL(request.url).pathname.startsWith('/api/')
  if (api) mustBeJson(type, body)
  else if (type !== 'application/x-www-form-urlencoded') {
    throw new RefusalError('invalid', null, 'The request is not a form.', 'Use the page.')
  } else if (body.split('&', FIELDS_MAX + 1).length > FIELDS_MAX) {
    throw new RefusalError(
      'invalid',
      null,
      `The form has more than ${FIELDS_MAX} fields.`,
      'Send fewer.',
    )
  }
  return body
}

/** The router would read what it cannot parse as nothing, and nothing means "all" in places. */
function mustBeJson(type: string, body: string): void {
  let value: unknown = null
  try {
    if (type === 'application/json') value = JSON.parse(body)
  } catch {
    value = null
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return
  throw new RefusalError(
    'invalid',
    null,
    'The body is not a JSON object.',
    'Send one with the header Content-Type: application/json.',
  )
}

/** The token of the header; null without one, and then the cookie counts. */
function bearer(request: Request): string | null {
  const match = /^bearer +(\S{1,500})$/i.exec(request.headers.get('authorization') ?? '')
  return match?.[1] ?? null
}

function formToken(request: Request, body: string): string {
  const type = request.headers.get('content-type') ?? ''
  if (!type.startsWith('application/x-www-form-urlencoded')) return ''
  return new URLSearchParams(body).get('_csrf') ?? ''
}

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

function cookiesOf(header: string): ReadonlyMap<string, string> {
  const cookies = new Map<string, string>()
  for (const pair of header.slice(0, 8_192).split(';')) {
    const at = pair.indexOf('=')
    if (at > 0) cookies.set(pair.slice(0, at).trim(), pair.slice(at + 1).trim())
  }
  return cookies
}
