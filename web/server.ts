/** The web of one node: guard, pages and API behind one function from request to answer. */
import { Elysia } from 'elysia'
import type { Admin } from '../src/admin/contract.ts'
import type { Clock } from '../src/base/clock.ts'
import {
  GatewayError,
  messageOf,
  type RefusalCode,
  RefusalError,
  unreachable,
} from '../src/base/errors.ts'
import type { Observer } from '../src/base/observe.ts'
import type { Random } from '../src/base/random.ts'
import { api } from './api.ts'
import { Assets } from './embed.ts'
import { Flashes } from './flashes.ts'
import { type Client, Guard, type Visit } from './guard.ts'
import { healthRoutes } from './health.ts'
import { html, seeOther } from './html.ts'
import { alertPages } from './pages/alerts.ts'
import { changesPages } from './pages/changes.ts'
import { clusterPages } from './pages/cluster.ts'
import { conflictPages } from './pages/conflicts.ts'
import { domainPages } from './pages/domains.ts'
import { framePages } from './pages/frame.ts'
import { joinPages } from './pages/join.ts'
import { listPages } from './pages/lists.ts'
import { livePage } from './pages/live.ts'
import { loginPages } from './pages/login.ts'
import { messagePages } from './pages/message.ts'
import { messagesPage } from './pages/messages.ts'
import { operatorPages } from './pages/operators.ts'
import { overviewPage } from './pages/overview.ts'
import { quarantinePages } from './pages/quarantine.ts'
import { queuePages } from './pages/queue.ts'
import { rulePages } from './pages/rules.ts'
import { settingsPages } from './pages/settings.ts'
import { setupPages } from './pages/setup.ts'
import { signingPages } from './pages/signing.ts'
import { tokenPages } from './pages/tokens.ts'
import { empty } from './parts/marks.ts'
import { door, shell } from './parts/shell.ts'
import type { Site } from './site.ts'
import { Streams } from './streams.ts'
import { errorOf } from './wire.ts'

export type Web = {
  /** Never rejects. `trusted`: through the control socket, which file permission guards. */
  handle(request: Request, client: Client): Promise<Response>
  close(): void
}

export type WebDeps = {
  readonly admin: Admin
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  /** Served over https: the cookie is Secure and bound to this host. */
  readonly secure: boolean
  readonly nodeName: string
  /** The file of this program, which `/join` gives to new machines; absent when run from source. */
  readonly program?: string
}

export const PAGE_POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

export function createWeb(deps: WebDeps): Web {
  const { admin, clock, observer, secure, nodeName, program = null } = deps
  const guard = new Guard({ admin, secure })
  const streams = new Streams(clock, (error) => {
    observer.emit('web.failed', { method: 'GET', path: '/events', cause: messageOf(error) })
  })
  const [assets, flashes] = [new Assets(), new Flashes()]
  const site: Site = { admin, clock, guard, nodeName, assets, flashes, streams, program }
  const app = router(site, refused)

  /** The answer to what was thrown; a bug goes to the log and nowhere else. */
  function refused(request: Request, visit: Visit, error: unknown): Response {
    const refusal = refusalOf(error)
    if (refusal === null) {
      const path = new URL(request.url).pathname.slice(0, 200)
      observer.emit('web.failed', { method: request.method, path, cause: messageOf(error) })
    }
    return refuse(site, request, visit, refusal)
  }

  async function answer(request: Request, client: Client): Promise<Response> {
    let entered = request
    try {
      entered = await guard.enter(request, client)
      return await app.handle(entered)
    } catch (error) {
      return refused(request, guard.strangerOr(entered, request, client), error)
    }
  }

  return {
    async handle(request, client) {
      const response = await answer(request, client)
      return finished(request, response)
    },
    close: () => streams.close(),
  }
}

type Refused = (request: Request, visit: Visit, error: unknown) => Response

function router(site: Site, refused: Refused) {
  return new Elysia()
    .onError({ as: 'global' }, ({ code, error, request }) =>
      refused(request, site.guard.visitOf(request), routerRefusal(String(code), error)),
    )
    .use(healthRoutes(site))
    .use(joinPages(site))
    .use(loginPages(site))
    .use(setupPages(site))
    .use(overviewPage(site))
    .use(messagesPage(site))
    .use(framePages(site))
    .use(messagePages(site))
    .use(quarantinePages(site))
    .use(queuePages(site))
    .use(settingsPages(site))
    .use(domainPages(site))
    .use(signingPages(site))
    .use(operatorPages(site))
    .use(tokenPages(site))
    .use(listPages(site))
    .use(rulePages(site))
    .use(conflictPages(site))
    .use(clusterPages(site))
    .use(alertPages(site))
    .use(changesPages(site))
    .use(livePage(site))
    .use(api(site, site.admin.status().version))
}

/** What the router itself refuses, in our words; anything else as it was. */
function routerRefusal(code: string, error: unknown): unknown {
  if (error instanceof GatewayError) return error
  if (code === 'NOT_FOUND') {
    return new RefusalError(
      'notFound',
      null,
      'There is nothing at this address.',
      'Look in the menu.',
    )
  }
  if (code === 'VALIDATION') {
    const field = fieldOf(error)
    return new RefusalError(
      'invalid',
      field,
      field === null ? 'The request is not complete.' : `${field} is missing or not as described.`,
      'See /api/v1/openapi.json.',
    )
  }
  if (code === 'PARSE') {
    return new RefusalError('invalid', null, 'The request cannot be read.', 'Send valid JSON.')
  }
  return error
}

/** `value` of `/value`, from the first complaint of the schema. */
function fieldOf(error: unknown): string | null {
  if (typeof error !== 'object' || error === null || !('valueError' in error)) return null
  const { valueError } = error
  if (typeof valueError !== 'object' || valueError === null || !('path' in valueError)) return null
  const path = String(valueError.path).replace(/^\//, '').replaceAll('/', '.')
  return path === '' || path === 'root' ? null : path.slice(0, 100)
}

/** Null for a bug, which is not explained to anybody but the log. */
function refusalOf(error: unknown): RefusalError | null {
  if (error instanceof RefusalError) return error
  if (error instanceof GatewayError) {
    return new RefusalError('unavailable', null, error.message, 'Try again in a moment.')
  }
  return null
}

function statusOf(code: RefusalCode): number {
  switch (code) {
    case 'invalid':
      return 400
    case 'unauthenticated':
      return 401
    case 'forbidden':
      return 403
    case 'notFound':
      return 404
    case 'conflict':
    case 'doubtful':
      return 409
    case 'locked':
      return 429
    case 'unavailable':
      return 503
    default:
      return unreachable(code)
  }
}

/** As JSON to scripts, as the sign-in to who is outside, as a page to people. */
function refuse(
  site: Site,
  request: Request,
  visit: Visit,
  refusal: RefusalError | null,
): Response {
  const { pathname, search } = new URL(request.url)
  const status = refusal === null ? 500 : statusOf(refusal.code)
  if (pathname.startsWith('/api/'))
    return Response.json(refusal === null ? FAILED : errorOf(refusal), { status })
  if (pathname === '/metrics') return new Response(`${refusal?.message ?? 'failed'}\n`, { status })
  if (refusal?.code === 'unauthenticated') {
    const next = request.method === 'GET' ? pathname + search : '/'
    const path = next === '/' ? '/login' : `/login?${new URLSearchParams({ next })}`
    // fetch would follow a redirect and htmx would put the sign-in into the page.
    if (visit.htmx) return new Response(null, { status, headers: { 'hx-redirect': '/login' } })
    return seeOther(path)
  }
  const title = refusal === null ? 'This node failed' : TITLES[refusal.code]
  const words =
    refusal === null
      ? html`The log of the node says why. Reload to see whether it was done, then try again.`
      : html`${refusal.message} ${refusal.advice}`
  const main = html`<section class="card" hx-ignore><h1 class="sr">${title}</h1>${empty(title, words, html`<a class="btn" href="/">Overview</a>`)}</section>`
  try {
    if (visit.author !== null && refusal !== null) {
      return shell(site, visit, { title, at: 'account', main, status })
    }
    return door(site, visit, { title, main, status })
  } catch {
    // The frame of the page asks the node too; what is broken there shall not hide the answer.
    return new Response('This node failed. Its log says why.\n', { status: 500 })
  }
}

const FAILED = {
  error: {
    code: 'failed',
    field: null,
    message: 'This node failed.',
    remedy: 'Its log says why; see whether it was done before you try again.',
  },
}

const TITLES: Readonly<Record<RefusalCode, string>> = {
  invalid: 'This cannot be done',
  unauthenticated: 'Sign in first',
  forbidden: 'Not allowed',
  notFound: 'Not found',
  conflict: 'Somebody was first',
  locked: 'Locked for a while',
  unavailable: 'Not possible now',
  doubtful: 'It may have been done already',
}

/** The headers of every answer; a frame or a file that set its own policy keeps it. */
function finished(request: Request, response: Response): Response {
  const { headers } = response
  if (!headers.has('content-security-policy')) headers.set('content-security-policy', PAGE_POLICY)
  if (!headers.has('cache-control')) headers.set('cache-control', 'no-store')
  headers.set('x-content-type-options', 'nosniff')
  headers.set('referrer-policy', 'no-referrer')
  headers.set('cross-origin-opener-policy', 'same-origin')
  headers.set('cross-origin-resource-policy', 'same-origin')
  if (request.method === 'HEAD') {
    void response.body?.cancel()
    return new Response(null, { status: response.status, headers })
  }
  return response
}
