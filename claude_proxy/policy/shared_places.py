"""Shared places: hosts where anybody can store or receive data, and hosts that resolve names.

Default-deny. An allowed object store, paste service, tunnel or chat hook is a stranger's as well:
what is read there could be anybody's, and what is written could be read by anybody. A list that
names one should name its paths or one account's host, and no wildcard should lead there. The names
are from the providers' own documentation. Pure.
"""

from collections.abc import Iterator
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.wire.public_suffix import Suffix, public_suffix


class PlaceKind(StrEnum):
    """What anybody can do at a shared place; the value reads well after "a" or "an"."""

    OBJECT_STORE = "object store"
    PASTE = "paste service"
    CODE = "place of anybody's code and files"
    FILES = "file-sharing service"
    SITES = "host of anybody's sites"
    TUNNEL = "tunnel to anybody's machine"
    CAPTURE = "service that shows what it is sent"
    MESSAGES = "service that passes messages on"
    FORMS = "service of anybody's documents and forms"
    RELAY = "service that fetches any page"
    DNS = "resolver of any name"


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """One such place: the host `base` and every host below it."""

    base: str
    kind: PlaceKind

    def __str__(self) -> str:
        return f"{self.base} ({self.kind})"


_PLACES: dict[PlaceKind, str] = {
    PlaceKind.OBJECT_STORE: """
        s3.amazonaws.com s3-accelerate.amazonaws.com s3-website.amazonaws.com
        storage.googleapis.com storage.cloud.google.com commondatastorage.googleapis.com
        firebasestorage.googleapis.com firebasestorage.app
        blob.core.windows.net file.core.windows.net queue.core.windows.net table.core.windows.net
        dfs.core.windows.net web.core.windows.net
        r2.cloudflarestorage.com r2.dev digitaloceanspaces.com backblazeb2.com wasabisys.com
        linodeobjects.com vultrobjects.com storage.yandexcloud.net aliyuncs.com myqcloud.com
        objectstorage.oraclecloud.com oraclecloud.com appdomain.cloud scw.cloud
        your-objectstorage.com contabostorage.com storjshare.io fly.storage.tigris.dev
        blob.vercel-storage.com supabase.co cloudinary.com imagekit.io
    """,
    PlaceKind.PASTE: """
        pastebin.com paste.rs paste.ee dpaste.com dpaste.org hastebin.com hastebin.skyra.pw
        ix.io sprunge.us termbin.com ghostbin.com privatebin.net rentry.co rentry.org
        controlc.com justpaste.it paste.debian.net paste.ubuntu.com paste.opensuse.org
        paste.centos.org paste.mozilla.org pastes.dev bpa.st p.ip.fi clbin.com 0bin.net
        jsonbin.io jsonblob.com npoint.io extendsclass.com textbin.net pastery.net
    """,
    PlaceKind.CODE: """
        gist.github.com gist.githubusercontent.com raw.githubusercontent.com
        objects.githubusercontent.com release-assets.githubusercontent.com
        user-images.githubusercontent.com private-user-images.githubusercontent.com
        media.githubusercontent.com github-cloud.s3.amazonaws.com codeload.github.com
        uploads.github.com huggingface.co hf.co hf.space kaggle.com
        cdn.jsdelivr.net unpkg.com esm.sh rawcdn.githack.com raw.githack.com codesandbox.io
        stackblitz.com replit.com jsfiddle.net codepen.io glitch.com
    """,
    PlaceKind.FILES: """
        transfer.sh file.io 0x0.st catbox.moe litterbox.catbox.moe gofile.io tmpfiles.org
        temp.sh uguu.se oshi.at bashupload.com pixeldrain.com filebin.net wetransfer.com we.tl
        mediafire.com mega.nz mega.io mega.co.nz anonfiles.com sendspace.com easyupload.io
        dropbox.com dropboxusercontent.com dropboxapi.com box.com boxcloud.com
        drive.google.com drive.usercontent.google.com docs.googleusercontent.com
        onedrive.live.com 1drv.ms sharepoint.com icloud.com imgur.com imgbb.com postimg.cc
        archive.org ipfs.io dweb.link w3s.link nftstorage.link pinata.cloud
        cloudflare-ipfs.com send.vis.ee wormhole.app keep.sh x0.at ttm.sh envs.sh
    """,
    PlaceKind.SITES: """
        github.io githubpreview.dev gitlab.io bitbucket.io pages.dev workers.dev vercel.app now.sh
        netlify.app netlify.com herokuapp.com onrender.com fly.dev railway.app up.railway.app
        web.app firebaseapp.com run.app cloudfunctions.net appspot.com azurewebsites.net
        azurestaticapps.net azurecontainerapps.io azureedge.net cloudapp.net cloudapp.azure.com
        cloudfront.net amazonaws.com awsapprunner.com lambda-url.us-east-1.on.aws on.aws
        amplifyapp.com elasticbeanstalk.com surge.sh glitch.me repl.co replit.app replit.dev
        deno.dev val.run web.val.run blogspot.com wordpress.com wixsite.com weebly.com tiiny.site
        neocities.org render.com ondigitalocean.app fastly.net akamaized.net b-cdn.net
        streamlit.app gradio.live modal.run claudeusercontent.com
        googleusercontent.com githubusercontent.com
    """,
    PlaceKind.TUNNEL: """
        ngrok.io ngrok.app ngrok.dev ngrok-free.app ngrok-free.dev ngrok.com trycloudflare.com
        cfargotunnel.com loca.lt localtunnel.me serveo.net serveousercontent.com localhost.run
        lhr.life lhr.rocks pagekite.me bore.pub telebit.io tunnelmole.net devtunnels.ms
        tunnels.api.visualstudio.com app.github.dev ts.net pinggy.io pinggy.link zrok.io
        playit.gg packetriot.net ply.gg portmap.io
    """,
    PlaceKind.CAPTURE: """
        webhook.site requestbin.com requestbin.net pipedream.net m.pipedream.net pipedream.com
        requestcatcher.com beeceptor.com hookbin.com postb.in ptsv2.com ptsv3.com typedwebhook.tools
        httpbin.org httpbingo.org postman-echo.com echo-api.3scale.net mockbin.org mocky.io
        run.mocky.io interact.sh oast.pro oast.live oast.site oast.online oast.fun oast.me
        oastify.com burpcollaborator.net dnslog.cn canarytokens.com canarytokens.org
        interactsh.com requestrepo.com smee.io svix.com webhook.cool ntfy.sh
    """,
    PlaceKind.MESSAGES: """
        hooks.slack.com slack.com files.slack.com discord.com discordapp.com cdn.discordapp.com
        api.telegram.org telegram.org t.me graph.facebook.com api.twitter.com api.x.com
        outlook.office.com webhook.office.com graph.microsoft.com chat.googleapis.com
        gmail.googleapis.com api.sendgrid.com api.mailgun.net api.postmarkapp.com api.twilio.com
        api.pushover.net api.pushbullet.com maker.ifttt.com hooks.zapier.com matrix.org
        fcm.googleapis.com sqs.amazonaws.com sns.amazonaws.com
    """,
    PlaceKind.FORMS: """
        docs.google.com forms.gle sheets.googleapis.com script.google.com
        script.googleusercontent.com sites.google.com forms.office.com api.notion.com notion.so
        notion.site api.airtable.com airtable.com trello.com api.trello.com app.asana.com
        formspree.io formsubmit.co getform.io typeform.com jotform.com etherpad.org hackmd.io
        firebaseio.com firebasedatabase.app firestore.googleapis.com
    """,
    PlaceKind.RELAY: """
        translate.goog translate.google.com webcache.googleusercontent.com r.jina.ai s.jina.ai
        corsproxy.io cors-anywhere.herokuapp.com api.allorigins.win allorigins.win
        thingproxy.freeboard.io web.archive.org images.weserv.nl api.codetabs.com 12ft.io
    """,
    PlaceKind.DNS: """
        dns.google dns.google.com dns64.dns.google 8888.google cloudflare-dns.com
        chrome.cloudflare-dns.com mozilla.cloudflare-dns.com security.cloudflare-dns.com
        family.cloudflare-dns.com one.one.one.one 1dot1dot1dot1.cloudflare-dns.com
        cloudflare-gateway.com dns.quad9.net dns9.quad9.net dns10.quad9.net dns11.quad9.net
        doh.opendns.com dns.umbrella.com doh.umbrella.com doh.familyshield.opendns.com
        dns.nextdns.io doh.cleanbrowsing.org dns.adguard.com dns.adguard-dns.com
        dns-family.adguard.com
        dns-unfiltered.adguard.com unfiltered.adguard-dns.com doh.mullvad.net dns.mullvad.net
        doh.dns.sb dns.sb doh.li doh.libredns.gr dns.switch.ch dns.alidns.com doh.pub
        dns.twnic.tw dns.digitale-gesellschaft.ch freedns.controld.com dns.controld.com
        doh.applied-privacy.net odoh.cloudflare-dns.com doh.xfinity.com dns0.eu
        zero.dns0.eu wikimedia-dns.org doh.ffmuc.net ordns.he.net
    """,
}

_BY_BASE: dict[str, SharedPlace] = {
    base: SharedPlace(base, kind) for kind, names in _PLACES.items() for base in names.split()
}

# Addresses of the resolvers above that answer by HTTPS under their address.
RESOLVERS: frozenset[str] = frozenset(
    (
        *("1.1.1.1", "1.0.0.1", "1.1.1.2", "1.0.0.2", "1.1.1.3", "1.0.0.3"),
        *("8.8.8.8", "8.8.4.4", "9.9.9.9", "9.9.9.10", "9.9.9.11", "149.112.112.112"),
        *("208.67.222.222", "208.67.220.220", "94.140.14.14", "94.140.15.15"),
        *("223.5.5.5", "223.6.6.6", "185.222.222.222", "45.11.45.11", "194.242.2.2"),
        *("2606:4700:4700::1111", "2606:4700:4700::1001", "2001:4860:4860::8888"),
        *("2001:4860:4860::8844", "2620:fe::fe", "2620:fe::9"),
    )
)
# Paths of DNS over HTTPS (RFC 8484, and the JSON form of several resolvers), on whatever host.
RESOLVER_PATHS: frozenset[str] = frozenset({"/dns-query", "/resolve"})


def shared_place_of(host: str) -> SharedPlace | None:
    """Return the shared place that the normalised name or address `host` is, or is below.

    Of a name with an unlisted provider's suffix ("x.github.io"), that suffix: unrelated people have
    their names there.
    """
    if host in RESOLVERS:
        return SharedPlace(host, PlaceKind.DNS)
    for name in _suffixes_of(host):
        if (found := _BY_BASE.get(name)) is not None:
            return found
    for name in _suffixes_of(host):
        if public_suffix(name) is Suffix.PROVIDER:
            return SharedPlace(name, PlaceKind.SITES)
    return None


def shared_places_under(pattern: HostPattern) -> Iterator[SharedPlace]:
    """Yield the shared places to which a wildcard leads: those below it, or one that it is below.

    Of a pattern that names one host or addresses, nothing: it is no wildcard.
    """
    if pattern.kind is PatternKind.EVERY:
        yield from _BY_BASE.values()
    if pattern.kind not in {PatternKind.SUBDOMAINS, PatternKind.DOMAIN}:
        return
    if (above := shared_place_of(pattern.host)) is not None:
        yield above
        return
    for base, place in _BY_BASE.items():
        if base.endswith(f".{pattern.host}"):
            yield place


def _suffixes_of(host: str) -> Iterator[str]:
    """Yield a name and each name above it, except a single label."""
    name = host
    while "." in name:
        yield name
        name = name.partition(".")[2]
