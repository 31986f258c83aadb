/** The cluster: its nodes and links, what happened, the way in and out; live. */
import { Elysia, t } from 'elysia'
import type { ClusterView, Invitation } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, seeOther } from '../html.ts'
import { eventsCard, linksCard, nodesCard, tokensCard } from '../parts/cluster-cards.ts'
import { csrf, mayAct } from '../parts/forms.ts'
import { copyable, note } from '../parts/marks.ts'
import { isLiving, livingWords, members, type NodeView, nameOf } from '../parts/nodes.ts'
import { liveParts, shell } from '../parts/shell.ts'
import { clockTime, count, counted } from '../parts/words.ts'
import type { Site } from '../site.ts'

const NODE = t.Object({ node: t.String({ maxLength: 64 }) })
const NUMBER = t.Optional(t.String({ maxLength: 20 }))

export function clusterPages(site: Site) {
  const { admin, guard, flashes, streams } = site
  /** Acts on a node and says so on the page of the cluster. */
  const acted = async (request: Request, id: string, words: string, run: () => Promise<void>) => {
    const { name } = nodeOf(site, id)
    const { session } = guard.visitOf(request)
    try {
      await run()
      flashes.add(session, `${name} ${words}`)
    } catch (error) {
      // The node went away in this moment: the page shows that, and stays.
      if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
      flashes.add(session, `${error.message} ${error.advice}`, { kind: 'failed' })
    }
    return seeOther('/cluster')
  }
  return new Elysia()
    .get('/cluster', ({ request }) => clusterPage(site, request, BLANK))
    .get('/events/cluster', ({ request }) => {
      const visit = guard.visitOf(request)
      return streams.open(
        (listener) => admin.watchCluster(listener),
        () => (guard.isStillIn(visit) ? parts(site, visit) : null),
      )
    })
    .post(
      '/cluster/invite',
      ({ request, body }) => {
        const { minutes = '', uses = '', name = '', replaces = '' } = body
        const typed = { minutes, uses, name, replaces }
        try {
          const invitation = admin.invite(guard.authorOf(request), {
            ...(minutes === '' ? {} : { minutes: wholeOf('minutes', minutes) }),
            ...(uses === '' ? {} : { uses: wholeOf('uses', uses) }),
            name: name.trim() === '' ? null : name.trim(),
            ...(replaces === '' ? {} : { replaces }),
          })
          return clusterPage(site, request, { ...BLANK, typed, invitation })
        } catch (error) {
          if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
          return clusterPage(site, request, { typed, invitation: null, refusal: error })
        }
      },
      {
        body: t.Object({
          minutes: NUMBER,
          uses: NUMBER,
          name: t.Optional(t.String({ maxLength: 200 })),
          replaces: t.Optional(t.String({ maxLength: 64 })),
        }),
      },
    )
    .post(
      '/cluster/invitations/:id/revoke',
      ({ request, params }) => {
        admin.revokeInvitation(guard.authorOf(request), params.id)
        flashes.add(guard.visitOf(request).session, 'The token is revoked')
        return seeOther('/cluster')
      },
      { params: t.Object({ id: t.String({ maxLength: 100 }) }) },
    )
    .post(
      '/cluster/nodes/:node/drain',
      ({ request, params }) =>
        acted(request, params.node, 'takes no new mail', () =>
          admin.drain(guard.authorOf(request), params.node),
        ),
      { params: NODE },
    )
    .post(
      '/cluster/nodes/:node/undrain',
      ({ request, params }) =>
        acted(request, params.node, 'takes mail again', () =>
          admin.undrain(guard.authorOf(request), params.node),
        ),
      { params: NODE },
    )
    .get(
      '/cluster/nodes/:node/remove',
      ({ request, params }) => removePage(site, request, params.node, null),
      { params: NODE },
    )
    .post(
      '/cluster/nodes/:node/remove',
      async ({ request, params, body }) => {
        try {
          mustName(nodeOf(site, params.node), body.name)
          const removed = await admin.removeNode(guard.authorOf(request), params.node)
          return removedPage(site, request, removed)
        } catch (error) {
          if (!asked(error)) throw error
          return removePage(site, request, params.node, error)
        }
      },
      { params: NODE, body: t.Object({ name: t.String({ maxLength: 300 }) }) },
    )
    .get('/cluster/leave', ({ request }) => leavePage(site, request, null))
    .post(
      '/cluster/leave',
      async ({ request, body }) => {
        try {
          mustName(hereOf(site), body.name)
          await admin.leave(guard.authorOf(request), body.abandon === 'yes')
          flashes.add(guard.visitOf(request).session, 'This node left the cluster')
          return seeOther('/cluster')
        } catch (error) {
          if (!asked(error)) throw error
          return leavePage(site, request, error)
        }
      },
      {
        body: t.Object({
          name: t.String({ maxLength: 300 }),
          abandon: t.Optional(t.String({ maxLength: 10 })),
        }),
      },
    )
}

/** Refusals that are shown at the form that asked. */
function asked(error: unknown): error is RefusalError {
  return (
    error instanceof RefusalError &&
    (error.code === 'invalid' || error.code === 'conflict' || error.code === 'unavailable')
  )
}

function wholeOf(field: string, text: string): number {
  if (/^\d{1,6}$/.test(text.trim())) return Number(text)
  throw new RefusalError('invalid', field, `“${text}” is no whole number.`, 'Enter digits only.')
}

/** By id, as the addresses of the pages have it. @throws RefusalError notFound */
function nodeOf({ admin }: Site, id: string): NodeView {
  const node = members(admin.cluster()).find((one) => one.id === id)
  if (node !== undefined) return node
  throw new RefusalError(
    'notFound',
    'node',
    'This node is no member of the cluster.',
    'See the page Cluster for those that are.',
  )
}

function hereOf(site: Site): NodeView {
  return nodeOf(site, site.admin.status().node)
}

function mustName({ name }: NodeView, typed: string): void {
  if (typed.trim() === name) return
  throw new RefusalError(
    'invalid',
    'name',
    `“${typed.trim()}” is not its name.`,
    `Type ${name} to confirm.`,
  )
}

type Typed = {
  readonly minutes: string
  readonly uses: string
  readonly name: string
  /** Id of the node in whose place the new one comes; empty: of none. */
  readonly replaces: string
}

type Sheet = {
  readonly typed: Typed
  /** Made by this request; its token is shown now and never again. */
  readonly invitation: Invitation | null
  readonly refusal: RefusalError | null
}

const BLANK: Sheet = {
  typed: { minutes: '', uses: '', name: '', replaces: '' },
  invitation: null,
  refusal: null,
}

function clusterPage(site: Site, request: Request, sheet: Sheet): Response {
  const { admin, clock } = site
  const visit = site.guard.visitOf(request)
  const view = admin.cluster()
  const nowMs = clock.wallMs()
  const main = html`<div class="head"><h1>Cluster</h1><p id="living">${livingSentence(view)}</p>${mayAct(visit) ? html`<div class="acts"><a class="btn" href="#add">Add a node</a></div>` : ''}</div>
${nodesCard(view, visit, nowMs)}
<div class="cols">${eventsCard(view, nowMs)}
${linksCard(view, admin.conflicts().length)}</div>
<div class="cols">${mayAct(visit) ? addCard(visit, view, sheet) : ''}
${tokensCard(view, admin.invitations(), visit, nowMs)}</div>`
  return shell(site, visit, {
    title: 'Cluster',
    at: 'cluster',
    main,
    stream: '/events/cluster',
    status: sheet.refusal === null ? 200 : 422,
  })
}

/** All that the stream sends; never the card with a fresh token, nor what somebody types. */
function parts(site: Site, visit: Visit): Html {
  const { admin, clock } = site
  const view = admin.cluster()
  const nowMs = clock.wallMs()
  const part = (id: string, card: Html) =>
    html`<hx-partial hx-target="#${id}" hx-swap="outerMorph">${card}</hx-partial>`
  return html`${liveParts(site, view, 'cluster')}
<hx-partial hx-target="#living" hx-swap="innerMorph">${livingSentence(view)}</hx-partial>
${part('nodes', nodesCard(view, visit, nowMs))}
${part('happened', eventsCard(view, nowMs))}
${part('links', linksCard(view, admin.conflicts().length))}
${part('tokens', tokensCard(view, admin.invitations(), visit, nowMs))}`
}

function livingSentence(view: ClusterView): string {
  const all = members(view)
  if (all.length < 2) return 'One node. With a second one mail goes on when one of them dies.'
  if (all.filter(isLiving).length === 1) return `${livingWords(view)} nodes alive. It is enough.`
  return `${livingWords(view)} nodes alive. Any one of them is enough.`
}

function addCard(visit: Visit, view: ClusterView, { typed, invitation, refusal }: Sheet): Html {
  return html`<section class="card" id="add" aria-labelledby="add-h">${invitation === null ? inviteForm(visit, view, typed, refusal) : invited(view, invitation, typed)}</section>`
}

const HX_INVITE = html`hx-post="/cluster/invite" hx-target="#add" hx-select="#add" hx-swap="outerHTML" hx-select-oob="#tokens" hx-status:5xx="swap:none"`

function inviteForm(
  visit: Visit,
  view: ClusterView,
  typed: Typed,
  refusal: RefusalError | null,
): Html {
  const named = ['minutes', 'uses', 'name', 'replaces']
  const others = members(view).filter(({ here }) => !here)
  const wrong = (field: string): Html | '' =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="${field}-e"` : ''
  const error = (field: string): Html | '' =>
    refusal?.field === field
      ? html`<p class="err" id="${field}-e">${refusal.message} ${refusal.advice}</p>`
      : ''
  const other =
    refusal === null || named.includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const number = (name: 'minutes' | 'uses', label: string, initial: string, unit: string) =>
    html`<label>${label}<span class="in"><input class="short" name="${name}" value="${typed[name]}" placeholder="${initial}" inputmode="numeric" maxlength="6" autocomplete="off"${wrong(name)}><span class="unit">${unit}</span>${error(name)}</span></label>`
  return html`<header><h2 id="add-h">Add a node</h2><small>One line on the new machine</small></header>
<form class="body stack form" method="post" action="/cluster/invite" ${HX_INVITE}>${csrf(visit)}
<p class="muted">This makes a token and the line to run. The new machine gets the same version, joins, and takes mail seconds later.</p>${other}
<div class="fields">${number('minutes', 'Valid for', '15', 'minutes')}${number('uses', 'Good for', '1', 'nodes')}<label>Its name<span class="in"><input class="wide" name="name" value="${typed.name}" placeholder="its host name" maxlength="200" autocomplete="off" autocapitalize="off" spellcheck="false"${wrong('name')}>${error('name')}</span></label>${others.length === 0 ? '' : html`<label>In place of<span class="in"><select name="replaces"${wrong('replaces')}><option value="">no other node</option>${others.map(({ id, name }) => html`<option value="${id}"${id === typed.replaces ? html` selected` : ''}>${name}</option>`)}</select>${error('replaces')}</span></label>`}</div>
<div class="acts"><button class="btn primary">Make a token</button></div></form>`
}

function invited(
  view: ClusterView,
  { token, command, expiresMs }: Invitation,
  { uses, replaces }: Typed,
): Html {
  const nodes = Number(uses.trim() === '' ? 1 : uses)
  const gone =
    replaces === ''
      ? ''
      : note(
          'warn',
          html`<b>When it is in, ${nameOf(view, replaces)} is removed.</b> Its queue goes on from the copies of it, at once, and its keys are refused for good.`,
        )
  return html`<header><h2 id="add-h">Add a node</h2><small>Valid until ${clockTime(expiresMs)}, for ${nodes === 1 ? 'one node' : counted(nodes, 'node')}</small></header>
<div class="body stack"><p class="muted">Run this as root on a fresh Linux machine. It checks the key of this node, installs the same version and joins; mail flows in seconds.</p>
${gone}${copyable('oneliner', command)}
<p class="muted">If Postern is installed there already:</p>
${copyable('joinline', `postern join ${token}`)}
<p><small>The token is shown only now. Whoever has it can join: send it as you would send a password.</small></p>
<div class="acts"><a class="btn quiet" href="/cluster#add">Make another one</a></div></div>`
}

function removePage(
  site: Site,
  request: Request,
  id: string,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const node = nodeOf(site, id)
  const alive = isLiving(node)
    ? note(
        'warn',
        html`<b>${node.name} is alive.</b> If it is yours, let it go by itself: run <code>postern leave</code> on it, and nothing is lost. Remove it when it is stolen, or out of your hands.`,
      )
    : ''
  const main = html`<div class="head"><div><small><a href="/cluster">Cluster</a></small><h1>Remove ${node.name}?</h1></div></div>
${refused(refusal)}${alive}
<form class="card form" method="post" action="/cluster/nodes/${node.id}/remove">${csrf(visit)}<div class="body first stack">
<ul class="says"><li>Its keys are refused by every other node from now on. It cannot come back; a fresh installation can join with a new token.</li><li><b>Its queue</b> goes on at once, from the nodes that have copies. What it delivered in its last moments may be delivered again.</li><li><b>Its held mail</b> can be released here where another node has a copy. What was released there without that being known here could arrive twice: it says so, and asks.</li><li>${costWords(node)}</li><li>The tokens that it made are void.</li><li>If it still runs somewhere, it goes on with the mail that it has until somebody stops it.</li></ul>
${confirm(node, refusal)}
<div class="acts"><button class="btn danger">Remove ${node.name}</button><a class="btn quiet" href="/cluster">Keep it</a></div></div></form>`
  return shell(site, visit, {
    title: `Remove ${node.name}`,
    at: 'cluster',
    main,
    status: statusOf(refusal),
  })
}

/** What is on its disk and nowhere else. */
function costWords({ report }: NodeView): Html {
  if (report === null)
    return html`Mail that only it has is lost to the cluster. How much that is, is not known here.`
  const { queue, held, alone } = report
  if (queue + held === 0) return html`By its last word it has no mail.`
  const said = html`By its last word it has <b>${counted(queue, 'mail')} in its queue</b> and <b>${counted(held, 'held mail')}</b>.`
  if (alone === 0) return html`${said} Other nodes have copies of all of them.`
  return html`${said} <b class="c rejected">${count(alone)} of them ${alone === 1 ? 'is' : 'are'} only there, and lost to the cluster.</b>`
}

function confirm({ name }: NodeView, refusal: RefusalError | null): Html {
  const wrong = refusal?.field === 'name'
  return html`<label><span>Type <code>${name}</code> to confirm</span><span class="in"><input class="typed" name="name" required maxlength="300" autocomplete="off" autocapitalize="off" spellcheck="false"${wrong ? html` aria-invalid="true" aria-describedby="name-e"` : ''}>${wrong && refusal !== null ? html`<p class="err" id="name-e">${refusal.message} ${refusal.advice}</p>` : ''}</span></label>`
}

function refused(refusal: RefusalError | null): Html | '' {
  if (refusal === null || refusal.field === 'name') return ''
  return note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
}

function statusOf(refusal: RefusalError | null): number {
  if (refusal === null) return 200
  return refusal.code === 'invalid' ? 422 : refusal.code === 'conflict' ? 409 : 503
}

type Removed = Awaited<ReturnType<Site['admin']['removeNode']>>

function removedPage(
  site: Site,
  request: Request,
  { name, taken, held, renew }: Removed,
): Response {
  const visit = site.guard.visitOf(request)
  const list =
    renew.length === 0
      ? ''
      : html`<section class="card" aria-labelledby="renew"><header><h2 id="renew">Renew what it could read</h2><small>If it is in the wrong hands</small></header><ul class="todo">${renew.map((words) => html`<li><i class="g warn"></i><div class="wrap">${words}</div></li>`)}</ul></section>`
  const main = html`<div class="head"><h1>${name} is removed</h1></div>
${note('pass', html`<b>Its keys are refused from now on.</b> ${taken === 0 ? 'This node had no copies of its queue.' : `${counted(taken, 'mail')} of its queue ${taken === 1 ? 'is' : 'are'} taken over.`} ${held === 0 ? 'It had no held mail, as far as is known here.' : `It had ${counted(held, 'held mail')}, as far as is known here: what another node has a copy of can be released as before.`}`)}
${list}<div class="acts"><a class="btn" href="/cluster">Cluster</a></div>`
  return shell(site, visit, { title: `${name} is removed`, at: 'cluster', main })
}

function leavePage(site: Site, request: Request, refusal: RefusalError | null): Response {
  const visit = site.guard.visitOf(request)
  const node = hereOf(site)
  const { queue, held } = site.admin.status()
  const abandon =
    refusal?.code === 'conflict' && queue.messages + held > 0
      ? html`<label class="pick"><input type="checkbox" name="abandon" value="yes"> Leave all the same, and give up the mail that is only here</label>`
      : ''
  const main = html`<div class="head"><div><small><a href="/cluster">Cluster</a></small><h1>Leave the cluster?</h1></div></div>
${refused(refusal)}
<form class="card form" method="post" action="/cluster/leave">${csrf(visit)}<div class="body first stack">
<ul class="says"><li>${node.name}, this node, stops taking mail and is no member any more. The others forget its keys.</li><li>Its mail goes to the other nodes first: its queue, what it holds, and the copies that it keeps for them. What nobody takes keeps it from leaving, and is told.</li><li>It comes back only as a new node, with a new token.</li></ul>
${confirm(node, refusal)}${abandon}
<div class="acts"><button class="btn danger">Leave</button><a class="btn quiet" href="/cluster">Stay</a></div></div></form>`
  return shell(site, visit, {
    title: 'Leave the cluster',
    at: 'cluster',
    main,
    status: statusOf(refusal),
  })
}
