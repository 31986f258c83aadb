/** Names on the web that links are weighed by: brands that thieves imitate, shorteners, redirectors. */

/**
 * Brands by the name under which their domains are registered, with any suffix. What leads to
 * one is theirs; what only looks or sounds like it is not.
 */
export const BRANDS: ReadonlySet<string> = new Set(
  `paypal amazon microsoft microsoftonline office365 outlook onedrive sharepoint google gmail icloud
facebook instagram whatsapp linkedin netflix spotify dropbox docusign adobe ebay coinbase binance blockchain
metamask kraken wellsfargo bankofamerica citibank hsbc barclays lloydsbank natwest santander bbva ingdirect
postbank sparkasse commerzbank deutsche-bank volksbank raiffeisen postfinance creditagricole bnpparibas
labanquepostale societegenerale caixabank intesasanpaolo unicredit posteitaliane fedex dhl usps hermesworld
royalmail laposte chronopost correos docomo rakuten alibaba aliexpress steampowered steamcommunity
americanexpress mastercard westernunion moneygram cloudflare godaddy namecheap hostinger ionos strato ovhcloud
salesforce zendesk intuit quickbooks mailchimp stripe revolut monzo klarna wetransfer telegram discord`.split(
    /\s+/,
  ),
)

/** Of the brands, words that stand in no honest name by chance: `paypal-help.example` is no accident. */
export const BRAND_WORDS: ReadonlySet<string> = new Set(
  `paypal microsoft microsoftonline office365 onedrive sharepoint icloud facebook instagram whatsapp
netflix dropbox docusign coinbase binance metamask wellsfargo bankofamerica citibank santander postbank
sparkasse commerzbank volksbank raiffeisen postfinance creditagricole bnpparibas intesasanpaolo americanexpress
mastercard steamcommunity wetransfer`.split(/\s+/),
)

/** Services that shorten a link of anybody: it says nothing of where it leads. */
export const SHORTENERS: ReadonlySet<string> = new Set(
  `bit.ly bitly.com tinyurl.com t.co goo.gl ow.ly is.gd v.gd buff.ly adf.ly bit.do cutt.ly rebrand.ly
shorturl.at tiny.cc t.ly rb.gy s.id shorte.st soo.gd clck.ru vk.cc qr.ae u.to x.co tr.im cli.gs snip.ly
short.io shorturl.asia lnkd.in wp.me j.mp fb.me amzn.to trib.al dlvr.it hubs.ly 1url.com qrco.de me-qr.com
l.ead.me urlz.fr shrtco.de gg.gg n9.cl tny.im did.li tinyurl.ph kutt.it linktr.ee qrs.ly scnv.io`.split(
    /\s+/,
  ),
)

/**
 * Pages that send everybody on to the address in them, by host and path. A link through one of
 * them borrows its good name.
 */
export const REDIRECTORS: readonly { readonly host: RegExp; readonly path: RegExp }[] = [
  { host: /(?:^|\.)google\.[a-z.]{2,6}$/, path: /^\/(?:url\?|amp\/s\/)/ },
  { host: /^(?:adclick\.g|googleads\.g)\.doubleclick\.net$/, path: /^\// },
  { host: /^(?:www\.)?bing\.com$/, path: /^\/(?:ck\/a|newtabredir)/ },
  { host: /^(?:lm?|www)\.facebook\.com$/, path: /^\/l\.php/ },
  { host: /^(?:www\.)?youtube\.com$/, path: /^\/redirect/ },
  { host: /^(?:www\.)?linkedin\.com$/, path: /^\/(?:redir|safety\/go)/ },
  { host: /^r\.search\.yahoo\.com$/, path: /^\// },
  { host: /^(?:r?d|drs|us\.rd|srd)\.yahoo\.com$/, path: /^\// },
  { host: /^(?:www\.)?baidu\.com$/, path: /^\/link/ },
  { host: /^(?:www\.)?yandex\.(?:ru|com)$/, path: /^\/(?:clck|redir)/ },
  { host: /^t\.me$/, path: /^\/iv/ },
  { host: /^(?:www\.)?vk\.com$/, path: /^\/away\.php/ },
  { host: /^slack-redir\.net$/, path: /^\/link/ },
  { host: /^out\.reddit\.com$/, path: /^\// },
]

/** Security gateways of others put their own name before every link. */
export const WRAPPERS =
  /(?:^|\.)(?:safelinks\.protection\.outlook\.com|urldefense\.com|urldefense\.proofpoint\.com|cudasvc\.com|secure-web\.cisco\.com|mimecast\.com|mimecastprotect\.com|protection\.sophos\.com|protect\.checkpoint\.com|trendmicro\.com|fireeye\.com|hornetsecurity\.com)$/

/** Suffixes that are sold for next to nothing and used for little else. */
export const CHEAP_SUFFIXES: ReadonlySet<string> = new Set(
  `top xyz click icu buzz cyou sbs cfd bond rest quest monster loan win bid stream gdn racing review
download trade date party science work men faith accountant cricket kim country mom beauty hair skin makeup
autos boats homes yachts lat hair zip mov tk ml ga cf gq`.split(/\s+/),
)

/** Gateways into stores that nobody can take a page out of. */
export const UNREMOVABLE =
  /(?:^|\.)(?:ipfs\.io|dweb\.link|cf-ipfs\.com|cloudflare-ipfs\.com|nftstorage\.link|w3s\.link|fleek\.co|4everland\.io)$/
